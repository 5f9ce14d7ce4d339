# SPDX-License-Identifier: Apache-2.0
# docker build -t cadre --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
#
# The programs as './cadre package bundle' makes them, and the demo model, on top of any base that has glibc 2.36 or later:
# nothing else of it is used, no shell either. Nothing here needs BuildKit.
ARG BASE=debian:12-slim

# Debian 12, whatever BASE is. What the programs are built with comes first: it changes seldom, and takes longest.
FROM debian:12-slim AS build
LABEL cadre=build
WORKDIR /src
COPY cadre ./
COPY scripts/common.sh scripts/setup.sh scripts/
RUN ./cadre setup --package && rm -rf /var/lib/apt/lists/*

# yes: with UCX's modules for RDMA and the libraries that they need (2 MB).
ARG RDMA=no
ARG COMMIT
COPY . .
RUN cmake --preset release -DBUILD_TESTING=OFF -DCMAKE_C_FLAGS="-ffunction-sections -fdata-sections" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--gc-sections \
 && CADRE_COMMIT=$COMMIT ./cadre package bundle \
 && mkdir -p /image/opt/cadre && cd /image/opt/cadre && tar -xJf /src/build/package/cadre-*.tar.xz --strip-components=1 \
 && rm -rf bin/cadre-start lib/systemd lib/sysusers.d README.md && find share -type f ! -path 'share/doc/cadre/libraries/*' ! -name LICENSE ! -name NOTICE -delete \
 && gzip -9n share/doc/cadre/libraries/*[!v] \
 && if [ "$RDMA" != yes ]; then (cd lib && rm -f ucx/libuct_ib.* ucx/libuct_rdmacm.* libuct_ib.* libuct_rdmacm.* libibverbs.* libmlx5.* librdmacm.* libnl-*); fi \
 && mkdir -p -m 1777 /image/var/lib/cadre && ln -s opt/cadre/models/demo /image/model

FROM ${BASE}
ARG COMMIT
LABEL org.opencontainers.image.title="Cadre" \
      org.opencontainers.image.description="Serves Mixture-of-Experts language models from a cluster: placement service, expert nodes, routers" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.licenses="Apache-2.0"
# /model is the demo model, until a volume is mounted there. /var/lib/cadre can be written to by any user, who owns the volume there.
COPY --from=build /image/ /
ENV PATH=/opt/cadre/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 65532:65532
# Of whichever service runs, with --http :7401. Both take the address that goes before it from CADRE_CLUSTER_NETWORK, else loopback.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["cadrectl", "health", "--http", ":7401"]
CMD ["cadrectl", "--help"]
