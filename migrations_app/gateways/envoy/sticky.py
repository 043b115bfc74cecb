"""The filter that tells users apart, so that each stays on one side of a split. Pure.

It gives a request with the key a number from 0 to 99, in a header that only the gateway may set and that no upstream
sees. The routes of a split take the numbers below their weight to the new side: a higher weight moves nobody back.
A request without the key gets no number, and is split at random.
"""

from __future__ import annotations

from typing import Any

from migrations_app.gateways.base import Sticky

FILTER = "sticky"
BUCKET_HEADER = "x-switchyard-bucket"

_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3"
# Names are compared as plain text; a pattern in them has no meaning. Numbers are doubles: no product exceeds 2^53.
# Clients choose the text, and a worker of Envoy serves nobody else meanwhile: no pattern may take a long run apart anew
# from each place in it, as `[^=]+=` does with a run that has no `=`. That took 4 s for a cookie of 20,000 letters.
_SCRIPT = r"""
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
local DIGITS = {}
for position = 1, 64 do DIGITS[ALPHABET:byte(position)] = position - 1 end

local function decoded(text)
  local bytes, bits, value = {}, 0, 0
  for position = 1, #text do
    local digit = DIGITS[text:byte(position)]
    if not digit then break end
    value, bits = value * 64 + digit, bits + 6
    if bits >= 8 then
      bits = bits - 8
      local high = math.floor(value / 2 ^ bits)
      bytes[#bytes + 1] = string.char(high)
      value = value - high * 2 ^ bits
    end
  end
  return table.concat(bytes)
end

-- The value of a key of the outermost object: its text as it stands, of a string or a number.
local function member(json, name)
  local depth, position = 0, 1
  while position <= #json do
    local letter = json:sub(position, position)
    if letter == '"' then
      local stop = position + 1
      while stop <= #json and json:sub(stop, stop) ~= '"' do
        if json:sub(stop, stop) == "\\" then stop = stop + 1 end
        stop = stop + 1
      end
      if depth == 1 and json:sub(position + 1, stop - 1) == name then
        local value = json:match("^%s*:%s*(.+)", stop + 1)
        if value then return value:match('^"([^"]+)"') or value:match("^(%-?%d[%d.eE+-]*)") end
      end
      position = stop
    elseif letter == "{" or letter == "[" then
      depth = depth + 1
    elseif letter == "}" or letter == "]" then
      depth = depth - 1
    end
    position = position + 1
  end
end

local function cookie(text, name)
  for pair in text:gmatch("[^;,%s]+") do
    local equals = pair:find("=", 1, true)
    if equals and pair:sub(1, equals - 1) == name then return pair:sub(equals + 1) end
  end
end

-- The middle one of a token's three parts, as it is written.
local function claims(text)
  if text:sub(1, 7):lower() ~= "bearer " then return nil end
  local first = text:find(".", 8, true)
  if not first then return nil end
  local second = text:find(".", first + 1, true) or #text + 1
  if second - first - 1 <= 8192 then return text:sub(first + 1, second - 1) end
end

local function bucket(text)
  local sum = 7
  for position = 1, math.min(#text, 512) do sum = (sum * 1048583 + text:byte(position)) % 4294967291 end
  for _ = 1, 4 do sum = (sum * 1048583 + 12345) % 4294967291 end
  return math.floor(sum / 4294967291 * 100)
end

-- Users come again, and to take a token apart takes longer than all the rest. What has not come again among the last
-- KEPT others at least, and twice as many at most, is forgotten; long tokens are not kept at all.
local KEPT, LONGEST = 1000, 1024
local newer, older, count = {}, {}, 0

local function number_of_claim(written, name)
  local place = name .. " " .. written
  local number = newer[place]
  if number == nil then
    number = older[place]
    if number == nil then
      local value = member(decoded(written), name)
      number = value and bucket(value) or false
    end
    if #written <= LONGEST then
      if count == KEPT then older, newer, count = newer, {}, 0 end
      newer[place], count = number, count + 1
    end
  end
  return number
end

local function number_of(headers, wanted)
  local claim = wanted:get("jwt_claim")
  if claim then
    local written = claims(headers:get("authorization") or "")
    return written and number_of_claim(written, claim)
  end
  local name, text = wanted:get("header"), nil
  if name then text = headers:get(name) else text = cookie(headers:get("cookie") or "", wanted:get("cookie")) end
  return text and text ~= "" and bucket(text)
end

function envoy_on_request(request)
  local headers = request:headers()
  local number = number_of(headers, request:filterContext())
  if number then
    headers:replace("x-switchyard-bucket", tostring(number))
    request:clearRouteCache()
  end
end
"""


def http_filter() -> dict[str, Any]:
    """For the listener. It does nothing but for routes that ask for it."""
    config = {"@type": f"{_LUA}.Lua", "default_source_code": {"inline_string": _SCRIPT}}
    return {"name": FILTER, "typed_config": config, "disabled": True}


def per_route(sticky: Sticky) -> dict[str, Any]:
    """The `typed_per_filter_config` of a route that asks for it."""
    named = {"header": sticky.header, "cookie": sticky.cookie, "jwt_claim": sticky.jwt_claim}
    context = {key: value for key, value in named.items() if value}
    return {FILTER: {"@type": f"{_LUA}.LuaPerRoute", "filter_context": context}}


def below(weight: int) -> dict[str, Any]:
    """Matches the requests with a number below the weight."""
    return {"name": BUCKET_HEADER, "range_match": {"end": str(weight)}}


def without_number() -> dict[str, Any]:
    """Matches the requests without one."""
    return {"name": BUCKET_HEADER, "present_match": False}
