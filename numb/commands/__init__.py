"""The commands, by what they are for. Each parses, calls one method of `Project`, and renders what came back."""
