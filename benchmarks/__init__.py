"""How fast Apprentice is on this machine: `make bench`."""
