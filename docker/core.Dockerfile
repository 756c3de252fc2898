# Core and trainer, also used for Prefect's server and MLflow's pages. It runs on CPU if pip finds a CPU wheel of torch,
# else on CUDA.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends g++ git libnuma1 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 apprentice && mkdir /project && chown apprentice /project
WORKDIR /project
COPY requirements/torch.txt requirements/core.txt requirements/
COPY requirements/hashes requirements/hashes
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/hashes/core.txt \
    && pip install --no-cache-dir -r requirements/torch.txt -c requirements/core.txt
USER apprentice
COPY --chown=apprentice .dvc/config .dvc/config
COPY --chown=apprentice apprentice apprentice
COPY --chown=apprentice appworld_engine appworld_engine
COPY --chown=apprentice tasks tasks
COPY --chown=apprentice flows flows
COPY --chown=apprentice params.yaml dvc.yaml pipelines.yaml .dvcignore .gitignore ./
# DVC needs a Git repository.
RUN git init --quiet .
ENV DO_NOT_TRACK=true DVC_NO_ANALYTICS=1 PREFECT_SERVER_ANALYTICS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
CMD ["python", "-m", "apprentice", "doctor"]
