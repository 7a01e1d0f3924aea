"""From config files and options to one composed config, and back to text."""
