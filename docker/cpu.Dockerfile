# The server for a CPU, with the embedded model and nothing else: no shell, no package manager, no root.
#
#   docker build -f docker/cpu.Dockerfile -t pentimento:cpu .
#   docker run -p 8080:8080 -e PENTIMENTO_KEYS=me=SECRET -v pentimento:/data pentimento:cpu
#
# `cargo xtask image` builds it without a daemon and without a registry, makes a picture in it, and checks its size.

# What compiles, and what the libraries come from: any image of this Debian release does, by another name or by digest.
ARG RUST=rust:1.95-slim-bookworm
ARG BASE=debian:bookworm-slim
# The stage that holds /out/pentimento; or an image that holds one which is compiled already.
ARG BINARY=compiled

FROM ${RUST} AS compiled
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN PENTIMENTO_FOR_IMAGE=1 cargo build --profile dist --locked --bin pentimento \
    && mkdir /out && objcopy --strip-all target/dist/pentimento /out/pentimento

FROM ${BINARY} AS binary

FROM ${BASE} AS files
COPY --from=binary /out/pentimento /root-of-image/usr/bin/pentimento
# The libraries that the binary asks for, where it asks for them, and nothing beside.
# A user of its own; the certificates of the public authorities, for models and pictures that are fetched; folders that
# the user may write to, which are volumes.
RUN set -eu; cd /root-of-image; mkdir -p etc tmp data models; \
    ldd usr/bin/pentimento | grep -o '/[^ ]*' | while read -r library; do \
        mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; done; \
    echo 'pentimento:x:10001:10001::/data:/usr/bin/pentimento' > etc/passwd; \
    echo 'pentimento:x:10001:' > etc/group; \
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then \
        mkdir -p etc/ssl/certs; cp -L /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/; fi; \
    chown -R 10001:10001 data models; chmod 700 data; chmod 1777 tmp

FROM scratch
COPY --from=files /root-of-image/ /
USER 10001:10001
# Jobs, pictures, keys and fetched models are kept here; everything else may be read-only.
ENV PENTIMENTO_DATA=/data HF_HOME=/models PENTIMENTO_LISTEN=0.0.0.0:8080 PENTIMENTO_ADMIN_LISTEN=127.0.0.1:8081
VOLUME ["/data", "/models"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s CMD ["/usr/bin/pentimento", "health"]
ENTRYPOINT ["/usr/bin/pentimento"]
CMD ["serve"]
