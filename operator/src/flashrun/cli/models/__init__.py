"""Base models on the user's machine, before they go into the platform's mirror."""
