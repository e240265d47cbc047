"""File access: atomic writes, files that are trusted, and reads whose errors are one line."""
