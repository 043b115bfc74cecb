"""Settings, all from the environment (django-environ); README.md lists them.

Three modes. `production` is the default and refuses to start half-configured. `local` is one machine with loopback
addresses, started by `make up` or `make demo`, which write their addresses into the state folder. `test` is pytest's.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from controlplane.database import PooledConnection
from controlplane.environment import load_runtime
from controlplane.gateways import Place, read_places, shared
from migrations_app.gateways.tables import HARD_TO_GUESS

BASE_DIR = Path(__file__).resolve().parent.parent

# A second terminal beside `make demo` finds the running parts without a setting; the real environment wins.
load_runtime()
env = environ.Env()

MODE = env.str("SWITCHYARD_MODE", default="production")
SECRET_KEY = env.str("SECRET_KEY", default="")
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[])
PRODUCTION = MODE == "production"
# Who may read /metrics (web/metrics.py). As it is: a token that begins with $ names no other variable.
METRICS_TOKEN = env.ENVIRON.get("METRICS_TOKEN", "").strip()
_METRICS_NETWORKS = env.list("METRICS_NETWORKS", default=[] if PRODUCTION else ["127.0.0.0/8", "::1"])
# Whoever sends it in a header is sent to the side of their choice (docs/plan-file.md); "" for nobody.
GATEWAY_TESTER_SECRET = env.ENVIRON.get("GATEWAY_TESTER_SECRET", "").strip()
# The gateway that the plan calls by `gateway.key`; and the further ones of `gateway.instances`, by their keys.
GATEWAY_DIR = Path(env.str("GATEWAY_DIR", default=str(BASE_DIR / ".state" / "gateway")))
GATEWAY_URL = env.str("GATEWAY_URL", default="http://127.0.0.1:8089")
GATEWAY_ADMIN_URL = env.str("GATEWAY_ADMIN_URL", default="http://127.0.0.1:9901")
_GATEWAYS = env.ENVIRON.get("GATEWAYS", "").strip()
# Networks that may be polled; link-local and metadata addresses never are (migrations_app.observe.networks).
HEALTH_NETWORKS = env.list(
    "HEALTH_NETWORKS",
    default=["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _refusals() -> list[str]:
    """A sentence for each reason not to start."""
    found = []
    if MODE not in {"production", "local", "test"}:
        found.append(f"SWITCHYARD_MODE is {MODE!r}; it must be production, local or test.")
    if not SECRET_KEY:
        found.append("SECRET_KEY is not set; give it a random value of at least 50 characters.")
    if PRODUCTION and DEBUG:
        found.append("DEBUG is on; production shows no internals, so unset it.")
    if PRODUCTION and SECRET_KEY and len(SECRET_KEY) < 50:
        found.append("SECRET_KEY is shorter than 50 characters; give it a longer random value.")
    if PRODUCTION and (not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS):
        found.append("ALLOWED_HOSTS is open or empty; name the host names that this dashboard is reached by.")
    if PRODUCTION and METRICS_TOKEN and len(METRICS_TOKEN) < 20:
        found.append("METRICS_TOKEN is shorter than 20 characters; give it a longer random value.")
    if GATEWAY_TESTER_SECRET and not re.fullmatch(HARD_TO_GUESS, GATEWAY_TESTER_SECRET):
        found.append("GATEWAY_TESTER_SECRET must be 16 to 200 letters, digits and . _ ~ -; give it a random value.")
    try:
        places = read_places(_GATEWAYS)
    except ValueError as problem:
        found.append(str(problem))
    else:
        first = Place(GATEWAY_DIR, GATEWAY_URL, GATEWAY_ADMIN_URL)
        found += filter(None, [shared([first, *places.values()])])
    found += [
        f"METRICS_NETWORKS has {network!r}, which is not a network; write one such as 10.0.0.0/8."
        for network in _METRICS_NETWORKS
        if not _is_network(network)
    ]
    found += [
        f"HEALTH_NETWORKS has {network!r}, which is not a network; write one such as 10.0.0.0/8."
        for network in HEALTH_NETWORKS
        if not _is_network(network)
    ]
    if "DATABASE_URL" not in env.ENVIRON:
        found.append("DATABASE_URL is not set, and no embedded PostgreSQL is running; set it, or run `make up`.")
    return found


if _found := _refusals():
    raise ImproperlyConfigured("\n".join(_found))

GATEWAYS = read_places(_GATEWAYS)
METRICS_NETWORKS = [ipaddress.ip_network(network) for network in _METRICS_NETWORKS]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "django_htmx",
    "template_partials",
    "migrations_app.apps.MigrationsAppConfig",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "migrations_app.web.access.SignInRequired",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "controlplane.one_thread.one_thread",  # stays last
]

ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
CSRF_FAILURE_VIEW = "migrations_app.web.errors.csrf_failure"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "migrations_app.web.context.chrome",
            ],
        },
    },
]

# -- PostgreSQL -----------------------------------------------------------------------------------------------------

DATABASES = {"default": env.db_url("DATABASE_URL", engine="django.db.backends.postgresql")}
DATABASES["default"] |= {
    "CONN_MAX_AGE": 60,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {
        # A click must learn within seconds that the database is away, stuck or locked; and a process that is stopped
        # in the middle of a change must not hold up a rollback for longer.
        "connect_timeout": 2,
        "options": "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=5s"
        # Questions are short and many. To start parallel workers took 25 of the 30 ms of one that found no row.
        " -c max_parallel_workers_per_gather=0 -c jit=off",
    },
}
if env.bool("DATABASE_POOL", default=False):
    DATABASES["default"]["CONN_MAX_AGE"] = 0  # the pool keeps the connections
    DATABASES["default"]["OPTIONS"]["pool"] = {
        "connection_class": PooledConnection,
        "min_size": 2,
        "max_size": 20,
        "timeout": 1.5,  # seconds that a request waits for a connection
        "reconnect_timeout": 1.0,  # seconds; then the next request tries anew, and not minutes of back-off later
        "max_idle": 300.0,
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- Celery over Redis: messages are hints, so losing one, or all of Redis, loses nothing ----------------------------

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
# With the defaults a hung Redis blocks a click for over 100 s.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "max_retries": 0,
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    "visibility_timeout": 120,
    "unacked_restore_interval": 5,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_TIME_LIMIT = 30
CELERY_TASK_SOFT_TIME_LIMIT = 20
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# By itself Celery connects to PostgreSQL anew for every task; `controlplane.celery` drops what is old or broken.
CELERY_DB_REUSE_MAX = 1_000_000_000
CELERY_TIMEZONE = "UTC"

# -- The gateway and what is watched ---------------------------------------------------------------------------------

# Without the binary on this host the validation before an apply is left to the gateway's own refusal.
ENVOY_BINARY = env.str("ENVOY_BINARY", default="")
# Added to every loopback port of a plan, so that two demos can run side by side.
PORT_OFFSET = env.int("PORT_OFFSET", default=0)

CONFIRM_WITHIN = env.float("CONFIRM_WITHIN", default=2.0)  # seconds that a click waits for the gateway's word
WORKER_HEAD_START = env.float("WORKER_HEAD_START", default=0.5)  # seconds before the web process reconciles itself
# Where the plan does not say otherwise:
HEALTH_INTERVAL = env.float("HEALTH_INTERVAL", default=2.0)  # seconds between polls of a service
HEALTH_TIMEOUT = env.float("HEALTH_TIMEOUT", default=1.5)  # seconds for a whole poll
HEALTH_STALE_AFTER = env.float("HEALTH_STALE_AFTER", default=30.0)  # seconds after which a state counts as unknown
CHECK_INTERVAL = env.float("CHECK_INTERVAL", default=15.0)  # seconds between runs of the automatic checks
CHECK_WITHIN = env.float("CHECK_WITHIN", default=5.0)  # seconds that one check gets
CHECK_STALE_AFTER = env.float("CHECK_STALE_AFTER", default=60.0)  # seconds after which a result counts as unknown
BACKUP_DIR = Path(env.str("BACKUP_DIR", default=str(BASE_DIR / ".state" / "backups")))  # where backups are looked for
PG_RESTORE = env.str("PG_RESTORE", default="")  # empty: the one on PATH, else that of the embedded PostgreSQL


def _named(prefix: str) -> dict[str, str]:
    """What the checks may use, by the name that a plan calls it: `CHECK_SECRET_JWT` is `jwt` of CHECK_SECRETS."""
    # As it is: a secret that begins with $ names no other variable.
    found = {name: value for name, value in env.ENVIRON.items() if name.startswith(prefix) and value}
    return {name.removeprefix(prefix).lower(): value for name, value in found.items()}


CHECK_DATABASES = _named("CHECK_DATABASE_")  # addresses of databases, with their passwords
CHECK_ACCOUNTS = _named("CHECK_ACCOUNT_")  # user:password
CHECK_SECRETS = _named("CHECK_SECRET_")
QUERY_INTERVAL = env.float("QUERY_INTERVAL", default=5.0)  # seconds between questions of the triggers to others
QUERY_WITHIN = env.float("QUERY_WITHIN", default=2.0)  # seconds that one of them gets
TRAFFIC_INTERVAL = env.float("TRAFFIC_INTERVAL", default=1.0)  # seconds between readings of the gateway's counters
# How long what was seen is kept, in days, and up to one partition (a day; of hours a month) longer. Days, changes of
# state and the audit log are kept for good. docs/history.md tells what each of them costs.
HEALTH_RAW_DAYS = env.int("HEALTH_RAW_DAYS", default=3)  # every poll
HISTORY_DAYS = env.int("HISTORY_DAYS", default=7)  # traffic, by the minute: checks look back as far as this
MINUTE_DAYS = env.int("MINUTE_DAYS", default=14)  # sums by the minute
HOUR_DAYS = env.int("HOUR_DAYS", default=400)  # sums by the hour

CELERY_BEAT_SCHEDULE = {
    "reconcile": {
        "task": "migrations_app.tasks.reconcile_all",
        "schedule": 1.0,
        "options": {"expires": 3, "queue": "gateway"},
    },
    "poll health": {
        "task": "migrations_app.tasks.poll_health",
        # It polls for minutes; whoever is sent meanwhile finds the lock taken, and goes.
        "schedule": 1.0,
        "options": {"expires": 1.0, "queue": "polls"},
    },
    "run checks": {
        "task": "migrations_app.tasks.run_checks",
        "schedule": CHECK_INTERVAL,
        "options": {"expires": CHECK_INTERVAL, "queue": "observe"},
    },
    "read traffic": {
        "task": "migrations_app.tasks.read_traffic",
        "schedule": TRAFFIC_INTERVAL,
        "options": {"expires": TRAFFIC_INTERVAL, "queue": "observe"},
    },
    "ask queries": {
        "task": "migrations_app.tasks.ask_queries",
        "schedule": QUERY_INTERVAL,
        "options": {"expires": QUERY_INTERVAL, "queue": "observe"},
    },
    "housekeep": {
        "task": "migrations_app.tasks.housekeep",
        "schedule": 60.0,
        "options": {"expires": 60, "queue": "observe"},
    },
    "keep history": {
        "task": "migrations_app.tasks.keep_history",
        "schedule": 15.0,
        "options": {"expires": 15, "queue": "observe"},
    },
    "forget old samples": {
        "task": "migrations_app.tasks.forget_old_samples",
        "schedule": 3600.0,
        "options": {"expires": 600, "queue": "observe"},
    },
}
CELERY_TASK_DEFAULT_QUEUE = "gateway"

STATUS_PUBLIC = env.bool("STATUS_PUBLIC", default=False)  # whether the status page is shown without sign-in

# -- Sign-in ---------------------------------------------------------------------------------------------------------

AUTHENTICATION_BACKENDS = ["migrations_app.roles.RoleBackend"]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "timeline"
LOGOUT_REDIRECT_URL = "sign-in"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
if MODE == "test":
    # The slow hash of real passwords would be most of what a test of accounts waits for.
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Sessions live in PostgreSQL: a dead Redis must not sign anybody out at 3 a.m.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_NAME = f"switchyard_{PORT_OFFSET}" if PORT_OFFSET else "switchyard"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_NAME = f"{SESSION_COOKIE_NAME}_csrf"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# -- Security --------------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "manifest-src": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    },
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
if PRODUCTION:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^metrics$"]  # asked by address, past the proxy that ends TLS
    if env.bool("BEHIND_TLS_PROXY", default=False):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

# -- The rest --------------------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles" if PRODUCTION else None
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage",
    },
}
# Outside production the files are served from where they lie, with no collecting step.
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = False

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        # With the 300 of the default, failures of made-up names soon push out those that the sign-in throttle counts.
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{levelname} {name} {message}", "style": "{"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="WARNING")},
    "loggers": {
        "migrations_app": {"level": env.str("LOG_LEVEL", default="INFO")},
        # Refusals (403, 404, 409) are answers, not faults; faults (5xx) still show.
        "django.request": {"level": "ERROR"},
    },
}
