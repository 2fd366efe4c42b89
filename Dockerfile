FROM python:3.12-slim AS build
WORKDIR /source
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY batching ./batching
COPY gateway ./gateway
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_HOST=0.0.0.0 \
    APP_PORT=8080 \
    APP_TFSERVING_HOST=tfserving \
    APP_TFSERVING_PORT=8500
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import os, ssl, urllib.request; e = os.environ; admin = e.get('APP_ADMIN_PORT'); urllib.request.urlopen('http' + 's' * ('APP_TLS_CERT' in e and not admin) + '://127.0.0.1:' + (admin or e['APP_PORT']) + '/healthz', timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["tfserving-gateway"]
CMD ["serve"]
