"""What reaches the terminal: text, tables, errors."""
