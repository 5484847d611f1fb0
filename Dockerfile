# echomimic-live in a container. docs/deploy.md says how to run it.
#
#   docker build --target cpu -t echomimic-live:cpu .
#   docker build --target cuda -t echomimic-live:cuda .
#
# Any image with Debian's tools and Python 3.10 or newer will do as the base.
ARG BASE=docker.io/library/python:3.12-slim-bookworm

# ---- the files of the project, for both targets

FROM scratch AS code
COPY LICENSE /
COPY protocol /protocol
COPY gateway /gateway
# The page is built on it.
COPY clients/js/client /clients/js/client
COPY audio_worker /audio_worker
COPY gpu_worker /gpu_worker
COPY encoder_worker /encoder_worker
COPY voice_worker /voice_worker
COPY scripts /scripts
# The bundled model, its pictures and poses: nothing is fetched when it runs.
COPY demo /demo

# ---- a user, a folder of its own, and an empty environment

FROM ${BASE} AS base
RUN groupadd --system --gid 10001 echomimic \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin echomimic \
    && install -d -o 10001 -g 10001 -m 0700 /data \
    && python3 -m venv /opt/venv
# Only /tmp has to be writable, so the root file system may be read-only. Tokens, the self-signed certificate, logs
# and compiled networks outlast the container where a volume is mounted at /data.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ECHOMIMIC_HOST=0.0.0.0 \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1
WORKDIR /app
EXPOSE 8080
# It reads the ECHOMIMIC_* variables. So set the port by ECHOMIMIC_PORT, not by --port.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --retries=3 CMD ["python", "-m", "scripts.run.health"]
ENTRYPOINT ["python", "-m"]
CMD ["scripts.run"]

# ---- for machines without an NVIDIA GPU

FROM base AS cpu
# A layer for each thing that changes at its own pace: the packages, the code. OpenVINO serves the bundled model, so
# there is no PyTorch. Of silero-vad a data file alone is read.
COPY requirements.lock /app/
COPY requirements-torch.lock /app/
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.lock \
    && pip install --no-cache-dir --disable-pip-version-check --no-deps \
        "$(grep -E '^silero-vad==' requirements-torch.lock)"
COPY --from=code / /app/
RUN python -m compileall -q /app
USER 10001:10001

# ---- for machines with an NVIDIA GPU and NVIDIA's container toolkit

FROM base AS cuda
# Triton compiles a small piece of C for the GPU's driver, with the headers of Python. Debian's own Python has them in
# a package of their own.
RUN apt-get update \
    && headers=$(case "$(readlink -f "$(command -v python3)")" in /usr/bin/*) echo python3-dev ;; esac) \
    && apt-get install -y --no-install-recommends gcc libc6-dev $headers \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://pypi.org/simple
COPY requirements.lock /app/
COPY requirements-torch.lock /app/
RUN pip install --no-cache-dir --disable-pip-version-check --index-url "$TORCH_INDEX" \
        "$(grep -E '^torch==' requirements-torch.lock)"
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.lock -r requirements-torch.lock
# NVIDIA's toolkit brings the driver's libraries for these.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=code / /app/
RUN python -m compileall -q /app
USER 10001:10001
