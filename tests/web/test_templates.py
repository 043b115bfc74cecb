"""Rules that every template and every static file keeps."""

import gzip
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
STATIC = ROOT / "static"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_inline_style_script_or_handler(path):
    content = path.read_text()
    assert not re.search(r"<style\b|\sstyle=|\son[a-z]+=|hx-on|javascript:", content, re.IGNORECASE)
    for script in re.findall(r"<script\b([^>]*)>(.*?)</script>", content, re.DOTALL):
        assert "src=" in script[0]
        assert not script[1]
    assert "|safe" not in content
    assert "autoescape" not in content
    assert not re.search(r"\bhx-vals|\[[^\]]*\]\s*from:", content)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_form_that_posts_carries_its_token(path):
    for form in re.findall(r'<form[^>]*method="post".*?</form>', path.read_text(), re.DOTALL):
        assert "{% csrf_token %}" in form or "parts/action_fields.html" in form


def test_templates_are_formatted():
    djade = Path(sys.executable).parent / "djade"
    done = subprocess.run([djade, "--check", *map(str, TEMPLATES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_comes_from_elsewhere():
    for path in [*TEMPLATES, *STATIC.rglob("*.css"), *STATIC.rglob("*.js")]:
        content = re.sub(r'xmlns="[^"]*"', "", path.read_text())
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", content), path
        assert "@import" not in content


def zipped(path):
    return len(gzip.compress(path.read_bytes()))


def test_styles_and_scripts_stay_small():
    assert sum(zipped(path) for path in STATIC.rglob("*.css")) <= 20_000
    htmx = Path(str(files("django_htmx"))) / "static" / "django_htmx" / "htmx-2.min.js"
    assert zipped(htmx) + sum(zipped(path) for path in STATIC.rglob("*.js")) <= 60_000


def test_every_icon_that_is_used_exists():
    drawn = set(re.findall(r'<symbol id="([a-z-]+)"', (STATIC / "icons.svg").read_text()))
    used = {name for path in TEMPLATES for name in re.findall(r'{% icon "([a-z-]+)"', path.read_text())}
    code = "".join(path.read_text() for path in (ROOT / "migrations_app" / "web").glob("*.py"))
    used |= {
        name for name in ("check", "cross", "unknown", "ring", "half", "open", "clock", "back") if f'"{name}"' in code
    }
    assert used <= drawn
    assert drawn - used == set()
