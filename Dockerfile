# Train and upscale in a container; on a machine with NVIDIA's container toolkit, with its GPUs:
#   docker build -t gramgan .
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all --shm-size 8g -v "$PWD:/work" gramgan train -opt FILE
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" gramgan upscale photo.jpg
# Its extras are video and heic; others by ARG EXTRAS, such as --build-arg EXTRAS=video,heic,shards,mmengine.
# For the CPU alone (4 GB less), with PyTorch's index of CPU builds:
#   docker build --build-arg PIP_ARGS="--index-url URL" -t gramgan .
FROM python:3.12-slim-bookworm

# Of OpenCV's wheel.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_ARGS=""
ARG EXTRAS="video,heic"
WORKDIR /opt/gramgan
COPY . .
# hadolint ignore=DL3042
RUN pip install --no-cache-dir -c constraints.txt $PIP_ARGS torch torchvision \
    && pip install --no-cache-dir -c constraints.txt ".[$EXTRAS]"

# Any user may write there.
RUN mkdir /work && chmod 1777 /work
ENV HOME=/work XDG_CACHE_HOME=/work/.cache MPLCONFIGDIR=/tmp
WORKDIR /work
ENTRYPOINT ["basicsr"]
CMD ["--help"]
