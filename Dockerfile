# syntax=docker/dockerfile:1

# One image for all roles: `docker run mailcordon:0.1.0 worker`, `… controller`, `… sender --campaign ID`.
# The first stage has the build tools; the second has Python, the packages of the hashed lock and mailcordon.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src

COPY requirements-dev.lock ./
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-dev.lock

COPY requirements.lock ./
RUN python -m venv --without-pip /opt/mailcordon \
 && /build/bin/pip --python /opt/mailcordon/bin/python install --no-cache-dir --disable-pip-version-check \
      --only-binary=:all: --require-hashes -r requirements.lock

COPY . ./
RUN /build/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation -w /wheels . \
 && /build/bin/pip --python /opt/mailcordon/bin/python install --no-cache-dir --disable-pip-version-check \
      --no-deps /wheels/*.whl


FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="mailcordon" \
      org.opencontainers.image.description="kubectl cordon for e-mail senders" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

# No package installer is left, and the one user can write to the data folder and /tmp only.  A named volume that is
# mounted over the two folders takes over their owner.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip setuptools wheel \
 && groupadd --gid 10001 mailcordon \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/mailcordon --shell /usr/sbin/nologin mailcordon \
 && install --directory --mode=0700 --owner=mailcordon --group=mailcordon /etc/mailcordon/secrets \
 && install --directory --mode=0755 --owner=mailcordon --group=mailcordon /var/lib/mailcordon

COPY --from=build /opt/mailcordon /opt/mailcordon

ENV PATH=/opt/mailcordon/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MAILCORDON_DATA=/var/lib/mailcordon \
    MAILCORDON_LOG_FORMAT=json

USER 10001:10001
WORKDIR /var/lib/mailcordon
STOPSIGNAL SIGTERM
ENTRYPOINT ["mailcordon"]
CMD ["--help"]
