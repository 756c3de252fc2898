# The policy server's environment: vLLM on CPU, in /opt/serve. With an NVIDIA GPU: --build-arg PINS=serve-cuda.txt --build-arg OPTIONS="".
FROM python:3.11-slim-bookworm
ARG PINS=serve.txt
ARG OPTIONS=--no-deps
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*
COPY requirements/torch.txt requirements/serve.txt requirements/serve-cuda.txt /requirements/
RUN python -m venv /opt/serve \
    && if [ -n "$OPTIONS" ]; then /opt/serve/bin/pip install --no-cache-dir -r /requirements/torch.txt; fi \
    && /opt/serve/bin/pip install --no-cache-dir $OPTIONS -r /requirements/$PINS
RUN useradd --create-home --uid 1000 apprentice
USER apprentice
CMD ["/opt/serve/bin/python", "-c", "import vllm; print(vllm.__version__)"]
