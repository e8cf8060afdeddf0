# The server for NVIDIA cards, on x86-64, with the libraries that it opens beside the host's driver (580 or newer). It has not yet
# run on a GPU.
#
#   docker build -f docker/cuda.Dockerfile -t pentimento:cuda .
#   docker run --gpus all -p 8080:8080 -e PENTIMENTO_KEYS=me=SECRET -v pentimento:/data pentimento:cuda
#
# Without `--gpus` it computes on the CPU and says so. `cargo xtask image --cuda` builds it without a daemon, makes a picture
# in it on the CPU, and checks its size.

# What compiles, and what the libraries come from: any image of this Debian release does, by another name or by digest.
ARG RUST=rust:1.95-slim-bookworm
ARG BASE=debian:bookworm-slim
# The stage that holds /out/pentimento; or an image that holds one which is compiled already, with the feature `cuda`.
ARG BINARY=compiled
# The stage that holds /out/nvidia; or an image that holds the libraries already.
ARG LIBRARIES=fetched

FROM ${RUST} AS compiled
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN PENTIMENTO_FOR_IMAGE=1 cargo build --profile dist --locked --features cuda --bin pentimento \
    && mkdir /out && objcopy --strip-all target/dist/pentimento /out/pentimento

FROM ${BASE} AS fetched
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-pip && rm -rf /var/lib/apt/lists/*
COPY docker/cuda-libraries.txt /tmp/cuda-libraries.txt
# Of cuDNN without `adv`, `cnn`, `ops` and `ext`: they have the old interface, one call for each kind of layer, of which the program
# uses nothing; what it calls, cudnnCreate and cudnnBackend*, is in `graph`, which opens the engines by itself. 0.16 GB less.
RUN set -eu; \
    pip download --quiet --no-deps --require-hashes --only-binary :all: --dest /tmp/wheels -r /tmp/cuda-libraries.txt; \
    for wheel in /tmp/wheels/*.whl; do python3 -m zipfile -e "$wheel" /tmp/libraries; done; \
    mkdir -p /out/nvidia; \
    mv /tmp/libraries/nvidia/cudnn/lib/*.so.* /tmp/libraries/nvidia/cu13/lib/libcublasLt.so.* \
        /tmp/libraries/nvidia/cu13/lib/libnvrtc.so.* /tmp/libraries/nvidia/cu13/lib/libnvrtc-builtins.so.* /out/nvidia/; \
    rm /out/nvidia/libcudnn_adv.so.* /out/nvidia/libcudnn_cnn.so.* /out/nvidia/libcudnn_ops.so.* /out/nvidia/libcudnn_ext.so.*; \
    rm -r /tmp/wheels /tmp/libraries

FROM ${BINARY} AS binary

FROM ${LIBRARIES} AS libraries

FROM ${BASE} AS files
COPY --from=binary /out/pentimento /root-of-image/usr/bin/pentimento
# The host's container runtime looks at debian_version for where to put the driver, and writes the cache of the loader, or does not.
# The libraries that the binary asks for, where it asks for them, and what NVIDIA's ask for.
# A user of its own; the certificates of the public authorities, for models and pictures that are fetched; folders that
# the user may write to, which are volumes.
RUN set -eu; cd /root-of-image; mkdir -p etc tmp data models; \
    { ldd usr/bin/pentimento | grep -o '/[^ ]*'; \
      for name in libstdc++.so.6 libgcc_s.so.1 libm.so.6 libz.so.1 librt.so.1 libpthread.so.0 libdl.so.2; do echo "/lib/x86_64-linux-gnu/$name"; done; } \
    | sort -u | while read -r library; do \
        if [ -e "$library" ]; then mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; fi; done; \
    mkdir -p etc/ld.so.conf.d; : > etc/ld.so.cache; cp /etc/debian_version etc/debian_version; \
    echo 'include /etc/ld.so.conf.d/*.conf' > etc/ld.so.conf; \
    echo 'pentimento:x:10001:10001::/data:/usr/bin/pentimento' > etc/passwd; \
    echo 'pentimento:x:10001:' > etc/group; \
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then \
        mkdir -p etc/ssl/certs; cp -L /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/; fi; \
    chown -R 10001:10001 data models; chmod 700 data; chmod 1777 tmp

FROM scratch
COPY --from=files /root-of-image/ /
COPY --from=libraries /out/nvidia /opt/nvidia
USER 10001:10001
# The host's container runtime brings the driver for these.
ENV LD_LIBRARY_PATH=/opt/nvidia:/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu:/usr/lib64 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Jobs, pictures, keys, compiled kernels and fetched models are kept here; everything else may be read-only.
ENV PENTIMENTO_DATA=/data HF_HOME=/models PENTIMENTO_LISTEN=0.0.0.0:8080 PENTIMENTO_ADMIN_LISTEN=127.0.0.1:8081
VOLUME ["/data", "/models"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["/usr/bin/pentimento", "health"]
ENTRYPOINT ["/usr/bin/pentimento"]
CMD ["serve"]
