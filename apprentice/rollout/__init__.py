"""The online simulator: many episodes at once, token for token."""
