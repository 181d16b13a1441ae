# An image of STMask with its requirements, made by the steps of README.md.
#
#   docker build -t stmask .                                                                    # CPU
#   docker build -t stmask --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .               # CUDA
#   docker run --rm -it [--gpus all] stmask
#
# BASE is Ubuntu 24.04 or an image made from it. torch brings its own CUDA libraries, the machine the driver.
ARG BASE=ubuntu:24.04
FROM ${BASE}

# A compiler and Python's headers for the native kernels; libgl1 and libglib2.0 for OpenCV.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential libgl1 libglib2.0-0t64 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /stmask
COPY . .

ENV PIP_NO_CACHE_DIR=1
RUN python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'

# As after `. .venv/bin/activate`.
ENV VIRTUAL_ENV=/stmask/.venv
ENV PATH=${VIRTUAL_ENV}/bin:${PATH}

CMD ["bash"]
