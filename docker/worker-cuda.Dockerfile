# Image of the worker with the plug-in for NVIDIA GPUs: Debian, and CUDA's libraries from pinned wheels
# (docker/cuda-wheels.txt), which docker/build puts into docker/wheels/ where there is no internet. By hand:
#   docker build -f docker/worker-cuda.Dockerfile -t seqpar/worker-cuda:0.1.0 .
# The driver's own libraries come from the NVIDIA container runtime. NVIDIA_VISIBLE_DEVICES is not set here, so a
# container gets the GPUs that it is given (--gpus, a device plugin), never all of them by default.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
# A toolkit within this tree, in place of the wheels: docker/cuda.
ARG CUDA_FOLDER=
COPY . /src
WORKDIR /src
RUN docker/compile --cuda /out

FROM ${BASE} AS worker-cuda
COPY --from=build /out/packages/worker-cuda /tmp/packages
COPY docker/install-runtime /tmp/
RUN echo 'seqpar:x:65532:65532:seqpar:/var/lib/seqpar:/usr/sbin/nologin' >>/etc/passwd && \
    echo 'seqpar:x:65532:' >>/etc/group && \
    install -d -o 65532 -g 65532 /var/lib/seqpar /data && \
    sh /tmp/install-runtime /tmp/packages
COPY --from=build /out/worker-cuda /usr/local
RUN ldconfig
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="seqpar worker for CUDA" \
      org.opencontainers.image.description="Runs a node's ranks of sequence-parallel transformer jobs on NVIDIA GPUs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
ENV SEQPAR_WORKER_STATE_DIR=/var/lib/seqpar SEQPAR_WORKER_LOG_FORMAT=json SEQPAR_WORKER_DEVICES=cuda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 7702
USER 65532:65532
ENTRYPOINT ["seqpar-worker"]
