# Two images from one file; docker-compose.yml names the targets.
#   sidecar      the sidecar under gunicorn
#   opensearch   OpenSearch with the personalize plugin

FROM python:3.11-slim AS packages
RUN python -m venv /venv
COPY requirements-serve.lock /
# torch as PyPI serves it: with its CUDA libraries on Linux, so the same image uses a GPU.
RUN --mount=type=cache,target=/var/cache/pip \
    /venv/bin/pip install --cache-dir /var/cache/pip --require-hashes --no-deps -r /requirements-serve.lock

FROM python:3.11-slim AS sidecar
# The first start compiles into /var/cache/numba. A new named volume takes its owner from the image.
RUN useradd --system --uid 10001 --no-create-home sidecar \
    && install --directory --owner=10001 --group=10001 /var/cache/numba
COPY --from=packages /venv /venv
WORKDIR /app
COPY sidecar sidecar
COPY scripts scripts
COPY mappings mappings
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/numba \
    SIDECAR_LISTEN=0.0.0.0:8080
USER sidecar
EXPOSE 8080
CMD ["python", "-m", "scripts.serve"]

FROM maven:3.9-eclipse-temurin-21 AS plugin
WORKDIR /plugin
COPY plugin/pom.xml .
COPY plugin/src src
RUN --mount=type=cache,target=/var/cache/maven \
    mvn --batch-mode --no-transfer-progress -Dmaven.repo.local=/var/cache/maven -DskipTests package

FROM opensearchproject/opensearch:3.9.0 AS opensearch
COPY --from=plugin /plugin/target/*.zip /tmp/
RUN opensearch-plugin install --batch "file://$(ls /tmp/opensearch-personalize-*.zip)"
