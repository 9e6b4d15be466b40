# One image for every process of the service, and for the sandbox: docker-compose.yml says which one a container runs.

FROM python:3.11.15-slim AS build
WORKDIR /src
# Without pip of its own: what installs is not in what is delivered.
RUN python -m venv --without-pip /opt/compactor
COPY pyproject.toml constraints.txt README.md ./
COPY worker worker
COPY scheduler scheduler
COPY ops ops
COPY sandbox sandbox
RUN python -m pip --python /opt/compactor/bin/python --disable-pip-version-check --no-cache-dir \
    install --constraint constraints.txt '.[otel]'

FROM python:3.11.15-slim
RUN groupadd --gid 10001 compactor \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/compactor --shell /usr/sbin/nologin compactor \
 && install --directory --owner compactor --group compactor --mode 0750 /var/lib/compactor
COPY --from=build /opt/compactor /opt/compactor
COPY policy.toml /etc/compactor/policy.toml
ENV PATH=/opt/compactor/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    COMPACTOR_STATE_DIR=/var/lib/compactor
# `policy.toml` is found here, and a `.env` where one is mounted.
WORKDIR /etc/compactor
USER 10001:10001
CMD ["compactor", "--help"]
