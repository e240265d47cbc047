"""File access: atomic writes, and reads whose errors are one line."""
