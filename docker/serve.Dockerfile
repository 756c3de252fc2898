# The policy server's environment in /opt/serve: vLLM for CPU. For an NVIDIA GPU, add --build-arg PINS=serve-cuda.txt.
FROM python:3.11-slim-bookworm
ARG PINS=serve.txt
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*
COPY requirements /requirements
RUN python -m venv /opt/serve \
    && if [ "$PINS" = serve.txt ]; then \
         /opt/serve/bin/pip install --no-cache-dir --no-deps --require-hashes -r /requirements/hashes/serve.txt; \
         PINS="torch.txt -c /requirements/serve.txt"; \
       fi \
    && /opt/serve/bin/pip install --no-cache-dir -r /requirements/$PINS
RUN useradd --create-home --uid 1000 apprentice
USER apprentice
CMD ["/opt/serve/bin/python", "-c", "import vllm; print(vllm.__version__)"]
