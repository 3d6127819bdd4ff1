"""`python -m numb`, for where the console script is not on PATH."""

from numb.cli import main

main(prog_name="numb")
