# The speech server for a CPU:
#   docker build -t harmonica .
#   docker run --rm -p 127.0.0.1:8000:8000 -e HARMONICA_TOKEN=secret harmonica
FROM python:3.11-slim
RUN useradd --create-home harmonica
WORKDIR /src
COPY settings.ini setup.py pyproject.toml constraints.txt README.md LICENSE MANIFEST.in CHANGELOG.md ./
COPY harmonica harmonica
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -c constraints.txt ".[serve,watermark]"
USER harmonica
WORKDIR /home/harmonica
RUN mkdir voices
VOLUME /home/harmonica/voices
EXPOSE 8000
HEALTHCHECK CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"
# HARMONICA_TOKEN must be set: the server refuses to listen to others without one
CMD ["harmonica-serve", "--host", "0.0.0.0", "--voices", "voices"]
