"""How the assistant's policies are scored and compared."""
