# The worker: runs flows, their stages, the trainer, and the policy server as a process of its own environment beside them.
# The server's weight endpoints have no authentication, so it listens on the container's loopback interface only.
FROM apprentice-serve AS serve
FROM apprentice-core
COPY --from=serve /opt/serve /opt/serve
ENV APPRENTICE_SERVE_PYTHON=/opt/serve/bin/python
CMD ["prefect", "worker", "start", "--pool", "apprentice", "--type", "process"]
