"""What is kept outside git: objects by content, the places they are copied to, and the index, which is only a cache."""
