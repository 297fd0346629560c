-- Copies shadowed requests and both of their answers to the agent, sent and forgotten: no request waits for a copy.
--
-- Runs inside Envoy, nearest to the servers: on the routes of requests that are shadowed, where stable answers, and on
-- the listener `shadow`, where the candidate does. `shadow.py` attaches it and names the headers, `copies.py` reads
-- what it sends. What it copies goes to the agent's socket and nowhere else.

local ffi = require("ffi")

ffi.cdef([[
typedef struct { long seconds; long nanoseconds; } graylift_shadow_time;
int clock_gettime(int clock, graylift_shadow_time *time) __asm__("clock_gettime");
]])
local MONOTONIC = 1
local time = ffi.new("graylift_shadow_time")

local NAMESPACE = "graylift.shadow"
local COPIES = "gateway/copies"
local MOST_BYTES = 1048576 -- an answer beyond this is not copied, nor compared
local GIVEN_UP_AFTER_MS = 5000
local HEADERS = { "content-type", "content-encoding", "inference-header-content-length" }

-- Envoy's script clock may step; this one does not.
local function now_us()
  ffi.C.clock_gettime(MONOTONIC, time)
  return string.format("%.0f", tonumber(time.seconds) * 1e6 + tonumber(time.nanoseconds) / 1e3)
end

-- The whole body as it passes by, or nil if it is too long.
local function body_of(handle)
  local parts, size = {}, 0
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    size = size + length
    if size <= MOST_BYTES then
      parts[#parts + 1] = chunk:getBytes(0, length)
    else
      parts = {}
    end
  end
  if size > MOST_BYTES then return nil end
  return table.concat(parts)
end

local function send(handle, path, headers, body)
  headers[":method"], headers[":path"], headers[":authority"] = "POST", path, "agent"
  handle:httpCall(COPIES, headers, body or "", GIVEN_UP_AFTER_MS, true)
end

function envoy_on_request(handle)
  local headers, context = handle:headers(), handle:filterContext()
  local id, about, arm = headers:get("x-request-id"), context and context:get("about"), "stable"
  if about == nil then about, arm = headers:get("x-graylift-shadow-about"), "candidate" end
  if id == nil or about == nil then return end
  if arm == "candidate" then
    -- The mirror would have taken this header for its own.
    headers:replace("x-envoy-upstream-rq-timeout-ms", headers:get("x-graylift-shadow-limit-ms"))
    local text = nil
    if headers:get("x-graylift-shadow-text") ~= nil then text = body_of(handle) end
    send(handle, "/asked", { ["x-request-id"] = id, ["about"] = about }, text)
  end
  local noted = handle:streamInfo():dynamicMetadata()
  noted:set(NAMESPACE, "id", id)
  noted:set(NAMESPACE, "about", about)
  noted:set(NAMESPACE, "arm", arm)
  noted:set(NAMESPACE, "began", now_us())
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  if noted == nil then return end
  local answer = handle:headers()
  local copy = {
    ["x-request-id"] = noted["id"],
    ["about"] = noted["about"],
    ["arm"] = noted["arm"],
    ["began"] = noted["began"],
    ["status"] = answer:get(":status"),
  }
  for _, name in ipairs(HEADERS) do
    local value = answer:get(name)
    if value ~= nil then copy["answer-" .. name] = value end
  end
  local body = body_of(handle)
  copy["ended"] = now_us()
  if body == nil then copy["too-long"] = "1" end
  send(handle, "/answered", copy, body)
end
