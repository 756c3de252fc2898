# The worker: runs flows, their stages, the trainer, and the policy server as a process of its own environment beside them.
# The policy server listens on a Unix socket inside the container, or on its loopback interface behind a key.
FROM apprentice-serve AS serve
FROM apprentice-core
COPY --from=serve /opt/serve /opt/serve
ENV APPRENTICE_SERVE_PYTHON=/opt/serve/bin/python
CMD ["prefect", "worker", "start", "--pool", "apprentice", "--type", "process"]
