#!/bin/sh
# @TITLE@
# Sends the requests of @COUNT@ back to the monolith, without Switchyard: it needs sh, awk and the tools of any Unix, and
# Envoy. Written by Switchyard for the routes of its plan, again whenever they change. Safe to run at any moment, and twice.
# Usage: sh @NAME@ [why]
set -u
LC_ALL=C
export LC_ALL
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1
folder=$(pwd)
routes=rds/rds.json
flags=@FLAGS@
url=@URL@
say() { printf '%s\n' "$*"; }
clean() { printf '%s' "$1" | tr '\000-\037\177' ' ' | cut -c 1-1000; }
why=$(clean "${1:-}")
by=$(clean "${SUDO_USER:-$(id -un 2>/dev/null || id -u)}")
at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
[ -f "$routes" ] || { say "There is no $folder/$routes: this is not the folder of a gateway. Nothing was done."; exit 1; }
temporary=".rds.json.$$.new"
trap 'rm -f "$temporary"' EXIT
trap 'exit 1' HUP INT TERM

# 1. The pins: from here on Switchyard, should it run, sends no request of these flags to the new side.
kept=yes
mkdir -p pins || kept=no
for flag in $flags; do
  printf 'by=%s\nat=%s\nwhy=%s\n' "$by" "$at" "$why" >".$flag.$$.new" && mv -f ".$flag.$$.new" "pins/$flag" \
    || { kept=no; rm -f ".$flag.$$.new"; }
done
generation=$(sed -n '1s/^{"version_info":"\([0-9]*\)".*/\1/p' "$routes")
[ -s pins.journal ] && [ -n "$(tail -c 1 pins.journal)" ] && printf '\n' >>pins.journal
printf 'done=pinned\tat=%s\tgeneration=%s\tflags=%s\tby=%s\twhy=%s\n' \
  "$at" "$generation" "$(printf '%s' "$flags" | tr ' ' ',')" "$by" "$why" >>pins.journal || kept=no
pins='The pins are set.'
[ "$kept" = yes ] || pins='NOT all pins could be written: when Switchyard runs again it may undo this.'
[ "$kept" = yes ] || say "WARNING: $pins"

# 2. The routes: what each flag's requests match goes to the monolith, and /routing-status tells so.
edit() {
  awk -F '\t' '
    function swap(text, from, to,   i) {
      i = index(text, from)
      return i ? substr(text, 1, i - 1) to substr(text, i + length(from)) : text
    }
    function number_after(text, from, key, to,   i, j, tail) {
      if (!(i = index(text, from))) return text
      i += length(from)
      tail = substr(text, i)
      if (!(j = index(tail, key))) return text
      i += j + length(key) - 1
      tail = substr(text, i)
      match(tail, /^[0-9]+/)
      return substr(text, 1, i - 1) to substr(tail, RLENGTH + 1)
    }
    function without(text, from, key,   i, j, section, rest) {
      if (!(i = index(text, from))) return text
      rest = substr(text, i + length(from))
      j = index(rest, "}")
      section = substr(rest, 1, j - 1)
      rest = substr(rest, j)
      if (j = index(section, key)) {
        match(substr(section, j + length(key)), /^[0-9]+,?/)
        section = substr(section, 1, j - 1) substr(section, j + length(key) + RLENGTH)
        sub(/,$/, "", section)
      }
      if (section == "") return substr(text, 1, i - 2) substr(rest, 2)
      return substr(text, 1, i - 1) from section rest
    }
    function status(text,   i, j, k, tail, key) {
      for (i = 1; i <= nflags; i++) {
        text = swap(text, Q flag[i] Q ":true", Q flag[i] Q ":false")
        text = number_after(text, Q "weights" Q ":{", Q flag[i] Q ":", "0")
        text = without(text, Q "write_weights" Q ":{", Q flag[i] Q ":")
      }
      for (i = 1; i <= nprefixes; i++) {
        key = Q prefix[i] Q ":{"
        if (!(j = index(text, key))) continue
        tail = substr(text, j)
        k = index(tail, Q "weight" Q ":")
        k += index(substr(tail, k), "}") - 1
        text = substr(text, 1, j - 1) Q prefix[i] Q ":" old[i] substr(tail, k + 1)
      }
      return text
    }
    BEGIN { Q = sprintf("%c%c", 92, 34) }
    FNR == NR && $1 == "flag" { flag[++nflags] = $2; next }
    FNR == NR && $1 == "prefix" { prefix[++nprefixes] = $2; old[nprefixes] = $3; next }
    FNR == NR && $1 == "rule" { rule[$2] = $3; next }
    FNR == NR && $1 == "name" { of[$2] = $3; next }
    {
      name = ""
      if (substr($0, 1, 9) == "{\"name\":\"") {
        name = substr($0, 10)
        name = substr(name, 1, index(name, "\"") - 1)
      }
      if (name in of) {
        if (!(of[name] in given)) print rule[of[name]] ","
        given[of[name]] = 1
      } else if (name == "own.routing-status") {
        told = 1
        print status($0)
      } else print
    }
    END { if (!told) exit 3 }
  ' - "$routes" <<'ROUTES'
@DATA@
ROUTES
}
move() {
  # The copy has the owner and the mode of the file, which Envoy must be able to read.
  cp -p "$routes" "$temporary" && edit >"$temporary" || return 1
  for flag in $flags; do
    if grep -q "\"flag\":\"$flag\",\"side\":\"service\"" "$temporary"; then
      say "WARNING: $flag has routes that this script does not know. They are not moved."
      unknown=yes
    fi
  done
  cmp -s "$temporary" "$routes" || mv -f "$temporary" "$routes"
}
unknown=no
alone=no
# Tried in a shell of its own: one that cannot redirect `exec` ends.
if command -v flock >/dev/null 2>&1 && (: >>.lock) 2>/dev/null && exec 9>>.lock; then flock -w 2 9 && alone=yes; fi
if ! move; then
  say "FAILED: $folder/$routes is not in the form that this script knows, or cannot be written. $pins"
  exit 1
fi
if [ "$alone" = no ]; then
  # An apply that was under way may have come after us; what begins now obeys the pins.
  sleep 2
  move
else
  exec 9>&-
fi
if [ "$kept" = yes ]; then say "Pinned to the monolith: $flags"; else say "Sent to the monolith: $flags. $pins"; fi

# 3. The gateway's own word.
status=1
if command -v curl >/dev/null 2>&1; then
  for try in 1 2 3 4 5 6 7 8 9 10; do
    answer=$(curl -s --noproxy '*' --max-time 1 "$url/routing-status")
    away=
    for flag in $flags; do
      case $answer in *"\"$flag\":false"*) ;; *) away="$away $flag" ;; esac
    done
    [ -z "$away" ] && break
    sleep 0.2 2>/dev/null || sleep 1
  done
  if [ -z "$away" ]; then
    say "The gateway says so too: $url/routing-status"
    status=0
  else
    say "NOT CONFIRMED: $url/routing-status does not say so of:$away. A gateway that is down runs it when it starts."
  fi
else
  say "There is no curl here. See for yourself: $url/routing-status must say false of each of these flags."
  status=0
fi
[ "$unknown$kept" = noyes ] || status=1
say "To undo it: manage.py pin lift $flags, then enable them again. Nothing goes back to the new side by itself."
exit "$status"
