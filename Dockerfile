# A trained model over HTTP, on CPUs:
#   docker build -t pgkd --build-arg PIP_ARGS='--extra-index-url URL' .   # an index with CPU builds of PyTorch: small
#   docker run -p 127.0.0.1:8000:8000 -e PGKD_API_KEY -v "$PWD/runs/bank/models/best:/model:ro" pgkd
FROM python:3.12-slim

RUN useradd --create-home pgkd
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY pgkd_agent pgkd_agent
COPY prompts prompts
COPY schemas schemas
ARG PIP_ARGS=
RUN python -m pip install --no-cache-dir $PIP_ARGS -c constraints.txt '.[serve]'

USER pgkd
WORKDIR /home/pgkd
EXPOSE 8000
HEALTHCHECK --start-period=60s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["pgkd", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
