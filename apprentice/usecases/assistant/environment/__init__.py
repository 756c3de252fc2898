"""The assistant's episodes: the environment, the client of AppWorld's engine, and the skills that the agent keeps."""
