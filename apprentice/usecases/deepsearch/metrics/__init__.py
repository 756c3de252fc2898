"""How the answers of DeepSearch's agents are scored and compared."""
