# MLX Manager on Linux. MLX computes on the CPU here; with `--build-arg MLX_EXTRA=cuda13` on NVIDIA's GPUs (not tried by us).
#   docker build -t mlx-manager .
#   docker run -p 10242:10242 -v mlx-manager:/data mlx-manager
# On an address that is not loopback the server wants an API key from everybody: make one in the running container with
#   docker exec CONTAINER mlx-manager user create NAME && docker exec CONTAINER mlx-manager key create NAME
FROM python:3.12-slim AS build
WORKDIR /source
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/mlx-manager && /opt/mlx-manager/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock
COPY src ./src
RUN /opt/mlx-manager/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
ARG MLX_EXTRA=""
RUN if [ -n "$MLX_EXTRA" ]; then /opt/mlx-manager/bin/pip install --no-cache-dir "mlx[$MLX_EXTRA]"; fi

FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libopenblas0 libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 mlx && mkdir /data && chown mlx /data
COPY --from=build /opt/mlx-manager /opt/mlx-manager
ENV PATH=/opt/mlx-manager/bin:$PATH MLX_MANAGER_HOME=/data MLX_MANAGER_HOST=0.0.0.0 HF_HOME=/data/huggingface
USER mlx
VOLUME /data
EXPOSE 10242
HEALTHCHECK --start-period=30s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:10242/health', timeout=5)"
CMD ["mlx-manager", "serve"]
