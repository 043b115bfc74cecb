# The product's own image: web, worker, beat and the one-shot steps are all this one, with different commands.
FROM python:3.13-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DJANGO_SETTINGS_MODULE=controlplane.settings

# A fixed number: the gateway's container runs under it too, because both share the gateway's folder.
# A new named volume takes the owner of the folder that it is mounted on.
RUN groupadd --gid 10001 switchyard \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin switchyard \
 && install --directory --owner 10001 --group 10001 /gateway /beat

# pg_restore, with which the automatic check of backups reads them.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-client \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app

COPY requirements/base.txt requirements/
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements/base.txt

COPY manage.py LICENSE ./
COPY controlplane controlplane
COPY migrations_app migrations_app
COPY templates templates
COPY static static
COPY plans plans

# The values are for this one step: collecting files needs settings, and the settings refuse to be half there.
RUN SWITCHYARD_MODE=production ALLOWED_HOSTS=build.invalid DATABASE_URL=postgres://build.invalid/none \
    SECRET_KEY="$(python -c 'import secrets; print(secrets.token_hex(32))')" \
    python manage.py collectstatic --noinput --verbosity 0

USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "uvicorn", "controlplane.asgi:application", "--host", "0.0.0.0", "--port", "8000", \
     "--timeout-graceful-shutdown", "5", "--no-access-log", "--log-level", "warning", "--no-server-header"]
