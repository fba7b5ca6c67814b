# Engine, clients and dashboard on a CPU, without torch.
#   docker build -t undertone .
#   docker run --rm -p 127.0.0.1:8765:8765 undertone
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/undertone \
    && /opt/undertone/bin/pip install --no-cache-dir -c constraints.txt '.[dashboard,parquet,plot,metrics,microphone]'

FROM python:3.11-slim-bookworm
# The sound library that the microphone needs; its version is the distribution's own.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libportaudio2 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --groups audio,video undertone
COPY --from=build /opt/undertone /opt/undertone
ENV PATH=/opt/undertone/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/undertone
# The dashboard asks for the token that it prints: 0.0.0.0 is this container's own address.
EXPOSE 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.error, urllib.request\ntry:\n    urllib.request.urlopen('http://127.0.0.1:8765/', timeout=2)\nexcept urllib.error.HTTPError:\n    pass"]
ENTRYPOINT ["undertone"]
CMD ["demo", "--host", "0.0.0.0"]
