# The worker runs flows, stages and the trainer, and the policy server as a separate process with its own environment.
# The policy server listens on a Unix socket inside the container, or on the loopback interface behind a key.
FROM apprentice-serve AS serve
FROM apprentice-core
COPY --from=serve /opt/serve /opt/serve
ENV APPRENTICE_SERVE_PYTHON=/opt/serve/bin/python
CMD ["prefect", "worker", "start", "--pool", "apprentice", "--type", "process"]
