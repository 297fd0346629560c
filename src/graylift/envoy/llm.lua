-- What a language model's request asks and how its answer goes, told to Envoy's log as dynamic metadata.
--
-- Runs inside Envoy, on the routes of services that speak openai, after the filter that takes requests in whole.
-- `llm.py` names what it writes. It sees prompts and answers and lets none of them out: it writes numbers and the
-- model's word for why it stopped, and what keeps a conversation on one revision is a hash.
--
-- JSON is read by its structure where it is changed, and by unescaped quotes where it is only looked at: inside a
-- string every quote is escaped, so `"usage":` with both of its quotes bare is a name and never a user's word.
-- What cannot be read surely is left alone and counted by the pieces of the stream.

local ffi = require("ffi")
local bit = require("bit")
local byte, find, match, sub = string.byte, string.find, string.match, string.sub

-- The low halves hold all of it, and 64-bit fields would each be an object of their own here.
ffi.cdef([[
typedef struct { int32_t seconds, seconds_high, nanoseconds, nanoseconds_high; } graylift_time;
int clock_gettime(int clock, graylift_time *time);
]])
local MONOTONIC = 1
local clock, time = ffi.C.clock_gettime, ffi.new("graylift_time")

local NAMESPACE = "graylift.llm"
local KEY_HEADER = "x-graylift-key"
local BYTES_A_TOKEN = 4
local MOST_OF_A_MESSAGE = 4096
local TAIL = 1024 -- longer than a usage object
local NOTED_EACH = 16 -- pieces
local MOST_OF_AN_EVENT = 2 ^ 20 -- bytes; what is longer is passed on without having been looked at

local QUOTE, BACKSLASH = byte('"'), byte("\\")
local NEWLINE, RETURN = byte("\n"), byte("\r")
local OPEN_BRACE, OPEN_BRACKET = byte("{"), byte("[")

-- Envoy's script clock may step; this one does not.
local function now_us()
  clock(MONOTONIC, time)
  return time.seconds * 1e6 + time.nanoseconds / 1e3
end

-- Where the string that opens at `at` closes.
local function end_of_string(text, at)
  local quote, before = at, at
  repeat
    quote = find(text, '"', quote + 1, true)
    if not quote then
      return nil
    end
    before = quote - 1
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
  until (quote - before) % 2 == 1
  return quote
end

-- Where the value that begins at `at` ends.
local function end_of_value(text, at)
  local first = byte(text, at)
  if first == QUOTE then
    return end_of_string(text, at)
  elseif first ~= OPEN_BRACE and first ~= OPEN_BRACKET then
    local _, last = find(text, "^[%w.+-]+", at)
    return last
  end
  local depth = 0
  while true do
    local mark = find(text, '["{}%[%]]', at)
    local char = mark and byte(text, mark)
    if char == QUOTE then
      mark = end_of_string(text, mark)
    elseif char == OPEN_BRACE or char == OPEN_BRACKET then
      depth = depth + 1
    else
      depth = depth - 1
    end
    if not mark or depth == 0 then
      return mark
    end
    at = mark + 1
  end
end

-- {name = {first, last}} of the object that begins at `at`, and where it ends; nil unless it is one, with plain names,
-- each once.
local function members(text, at)
  if byte(text, at) ~= OPEN_BRACE then
    return nil
  end
  local found = {}
  local _, close = find(text, "^%s*}", at + 1)
  if close then
    return found, close
  end
  local _, before = find(text, "^%s*", at + 1)
  while true do
    local name_last = byte(text, before + 1) == QUOTE and end_of_string(text, before + 1)
    if not name_last then
      return nil
    end
    local name = sub(text, before + 2, name_last - 1)
    local _, colon = find(text, "^%s*:%s*", name_last + 1)
    local last = colon and end_of_value(text, colon + 1)
    if not last or found[name] or find(name, "\\", 1, true) then
      return nil
    end
    found[name] = { colon + 1, last }
    _, before = find(text, "^%s*,%s*", last + 1)
    if not before then
      _, close = find(text, "^%s*}", last + 1)
      return close and found, close
    end
  end
end

-- The members of the only value of `text`.
local function document(text)
  local first = find(text, "%S")
  local found, close
  if first then
    found, close = members(text, first)
  end
  return found and not find(text, "%S", close + 1) and found or nil, first
end

local function value(text, span)
  return span and sub(text, span[1], span[2])
end

local function count(text, span)
  local number = tonumber(value(text, span) or "")
  return number and number >= 0 and number < 2 ^ 31 and math.floor(number) or nil
end

-- FNV-1a. Two keys of one hash share a revision, which harms nobody.
local function hash(text)
  local sum = 0x811c9dc5
  for at = 1, math.min(#text, MOST_OF_A_MESSAGE) do
    sum = bit.bxor(sum, byte(text, at))
    sum = bit.tobit((sum % 2 ^ 32) * 0x193 + bit.lshift(sum, 24) % 2 ^ 32)
  end
  return bit.tohex(sum)
end

-- What the conversation began with, its instructions aside: those are the same for all users of an application.
local function first_message(text, messages)
  local _, before = find(text, "^%[%s*", messages[1])
  while before do
    local message, close = members(text, before + 1)
    if not message then
      return nil
    end
    local role = value(text, message.role)
    if role ~= '"system"' and role ~= '"developer"' then
      return value(text, message.content)
    end
    _, before = find(text, "^%s*,%s*", close + 1)
  end
end

-- What keeps this request together with others; nil if it tells nothing: null and an empty text are nobody's.
local function sticky_key(kind, text, asked)
  local key
  if kind == "user" then
    key = value(text, asked.user)
  elseif kind == "conversation" then
    key = asked.messages and first_message(text, asked.messages)
  end
  return key and key ~= '""' and find(key, '^["%[]') and key
end

-- The request with usage asked for; nil if it asks itself, or says so in a way that cannot be changed surely.
local function with_usage(text, first, asked)
  local span = asked.stream_options
  if not span then
    return sub(text, 1, first) .. '"stream_options":{"include_usage":true},' .. sub(text, first + 1)
  end
  local before, options, after = sub(text, 1, span[1] - 1), value(text, span), sub(text, span[2] + 1)
  if options == "null" then
    return before .. '{"include_usage":true}' .. after
  end
  local inner = members(options, 1)
  if not inner then
    return nil
  end
  local wanted = inner.include_usage
  if not wanted then
    return before .. '{"include_usage":true' .. (next(inner) and "," or "") .. sub(options, 2) .. after
  elseif value(options, wanted) == "true" then
    return nil
  end
  return before .. sub(options, 1, wanted[1] - 1) .. "true" .. sub(options, wanted[2] + 1) .. after
end

-- To be asked for anew after each wait for bytes: what was handed out before is void then.
local function metadata_of(handle)
  return handle:streamInfo():dynamicMetadata()
end

function envoy_on_request(handle)
  handle:headers():remove(KEY_HEADER)
  metadata_of(handle):set(NAMESPACE, "stream", false)
  local body = handle:body()
  if not body then
    return
  end
  local text = body:getBytes(0, body:length())
  local asked, first = document(text)
  if not asked then
    return
  end

  local headers, metadata = handle:headers(), metadata_of(handle)
  local prompt = asked.messages or asked.prompt or asked.input
  local estimate = prompt and math.ceil((prompt[2] - prompt[1] + 1) / BYTES_A_TOKEN) or 0
  local most = count(text, asked.max_completion_tokens) or count(text, asked.max_tokens)
  if most then
    metadata:set(NAMESPACE, "max_tokens", most)
  end
  metadata:set(NAMESPACE, "reserve", estimate + (most or 0) * (count(text, asked.n) or 1))

  local is_completion = find(match(headers:get(":path"), "^[^?]*"), "/completions$") ~= nil
  if is_completion then
    headers:remove("accept-encoding") -- a packed answer could not be read
    metadata:set(NAMESPACE, "estimate", estimate)
  end
  if value(text, asked.stream) == "true" then
    metadata:set(NAMESPACE, "stream", true)
    local edited = is_completion and with_usage(text, first, asked)
    if edited then
      body:setBytes(edited)
      if headers:get("content-length") then
        headers:replace("content-length", #edited)
      end
      metadata:set(NAMESPACE, "usage_asked", true)
    end
  end

  local context = handle:filterContext()
  local key = sticky_key(context and context:get("sticky"), text, asked)
  if key then
    headers:add(KEY_HEADER, hash(key))
    handle:clearRouteCache()
  end
end

-- Tokens as the server counted them, if `text` tells.
local function note_usage(handle, text)
  local from, last = find(text, '"usage"', 1, true)
  if not from or not find(text, "^%s*:%s*{", last + 1) then
    return false
  end
  local into = match(text, '"prompt_tokens"%s*:%s*(%d+)', from) or match(text, '"input_tokens"%s*:%s*(%d+)', from)
  local out = match(text, '"completion_tokens"%s*:%s*(%d+)', from) or match(text, '"output_tokens"%s*:%s*(%d+)', from)
  if not into then
    return false
  end
  local metadata = metadata_of(handle)
  into, out = tonumber(into), tonumber(out) or 0 -- an embedding has no tokens of its own
  metadata:set(NAMESPACE, "input_tokens", into)
  metadata:set(NAMESPACE, "output_tokens", out)
  metadata:set(NAMESPACE, "total_tokens", into + out)
  metadata:set(NAMESPACE, "estimated", false)
  return true
end

local function note_finish(handle, text)
  local _, last = find(text, '"finish_reason"', 1, true)
  local finish = last and match(text, '^%s*:%s*"([%w_-]+)"', last + 1)
  if finish then
    metadata_of(handle):set(NAMESPACE, "finish", finish)
  end
  return finish
end

local function has_error(text)
  local _, last = find(text, '"error"', 1, true)
  return last and find(text, '^%s*:%s*[{"]', last + 1)
end

-- Where a choice shows that the model has made something. Role and empty text come before its first token.
local CONTENT = {
  { '"content"', '^%s*:%s*"[^"]' },
  { '"text"', '^%s*:%s*"[^"]' },
  { '"reasoning_content"', '^%s*:%s*"[^"]' },
  { '"reasoning"', '^%s*:%s*"[^"]' },
  { '"tool_calls"', "^%s*:%s*%[%s*{" },
  { '"function_call"', "^%s*:%s*{" },
  { '"refusal"', '^%s*:%s*"[^"]' },
}

-- Where the first byte of content is; nil if there is none.
local function content_of(event, choices)
  for index = 1, #CONTENT do
    local _, last = find(event, CONTENT[index][1], choices, true)
    if last then
      local _, first = find(event, CONTENT[index][2], last + 1)
      if first then
        return first
      end
    end
  end
end

-- The event as the client would have got it, had nobody asked for usage.
local function without_usage(event)
  local at, last = find(event, '"usage"', 1, true)
  if not at then
    return event
  elseif not find(event, "^%s*:%s*null", last + 1) then
    return find(event, '"choices"%s*:%s*%[%s*%]') and "" or event
  end
  local short, times = string.gsub(event, ',%s*"usage"%s*:%s*null', "", 1)
  if times == 0 then
    short = string.gsub(event, '"usage"%s*:%s*null%s*,%s*', "", 1)
  end
  return short
end

-- Where the event that begins at `from` ends, the empty line after it included; nil if it is not all there.
local function end_of_event(text, from)
  local at = find(text, "\n", from, true)
  while at do
    local char = byte(text, at + 1)
    if char == NEWLINE then
      return at + 1
    elseif char == RETURN and byte(text, at + 2) == NEWLINE then
      return at + 2
    end
    at = find(text, "\n", at + 1, true)
  end
end

local function note_progress(handle, stream)
  if stream.pieces == 0 or stream.counted then
    return
  end
  local metadata = metadata_of(handle)
  metadata:set(NAMESPACE, "output_tokens", stream.pieces)
  metadata:set(NAMESPACE, "total_tokens", stream.estimate + stream.pieces)
  metadata:set(NAMESPACE, "estimated", true)
end

local function note_time(handle, stream, name)
  metadata_of(handle):set(NAMESPACE, name, math.floor(now_us() - stream.began_us))
end

local function note_piece(handle, stream)
  stream.pieces = stream.pieces + 1
  if stream.pieces == 1 then
    note_time(handle, stream, "first_us")
  end
  if stream.pieces % NOTED_EACH == 1 then
    note_progress(handle, stream)
  end
end

-- Tokens of a stream differ in their content alone. Remember what stands before it and from its closing quote on, and
-- what the latter becomes for the client; the next such event need not be taken apart.
local function learn(stream, event, first, shown)
  local quote = byte(event, first - 1) == QUOTE and end_of_string(event, first - 1)
  local before = quote and sub(event, 1, first - 1)
  if quote and sub(shown, 1, first - 1) == before then
    stream.before, stream.after, stream.shown = before, sub(event, quote), sub(shown, quote)
  end
end

-- Where the event that begins at `from` ends, and what of it the client gets, if it is a token like the ones before.
local function like_before(stream, text, from)
  local before, after = stream.before, stream.after
  if not before or find(text, before, from, true) ~= from then
    return nil
  end
  local first = from + #before
  local quote = find(text, '"', first, true)
  if not quote or quote == first or find(text, after, quote, true) ~= quote then
    return nil
  end
  return quote + #after - 1, stream.hides and sub(text, from, quote - 1) .. stream.shown
end

-- What an event shows. Returns what of it the client gets.
local function note_event(handle, stream, event)
  local shown = stream.hides and without_usage(event) or event
  local choices = find(event, '"choices"', 1, true)
  local failed = has_error(event)
  if choices then
    local first = content_of(event, choices)
    local ended = note_finish(handle, event)
    local counted = note_usage(handle, event)
    stream.counted = counted or stream.counted
    if first then
      note_piece(handle, stream)
      if not (ended or counted or failed) then
        learn(stream, event, first, shown)
      end
    end
    if ended then
      note_time(handle, stream, "last_us")
      note_progress(handle, stream)
    end
  elseif find(event, "data:%s*%[DONE%]") then
    metadata_of(handle):set(NAMESPACE, "done", true)
  end
  if failed then
    metadata_of(handle):set(NAMESPACE, "error", true)
  end
  return shown
end

-- Follow a stream of tokens, each chunk passed on as it comes. Only of an event that has begun, and might have to be
-- taken out, the bytes wait for the rest. Of a stream that breaks no more is heard, so progress is noted on the way.
local function follow(handle, request)
  local stream = {
    began_us = now_us(),
    pieces = 0,
    counted = false,
    hides = request.usage_asked == true,
    estimate = request.estimate or 0,
  }
  local hides, rest = stream.hides, ""
  metadata_of(handle):set(NAMESPACE, "followed", true)
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    local came = chunk:getBytes(0, size)
    local text, from, out = rest == "" and came or rest .. came, 1, ""
    while from <= #text do
      local last, shown = like_before(stream, text, from)
      if last then
        note_piece(handle, stream)
      else
        last = end_of_event(text, from)
        if not last then
          break
        end
        shown = note_event(handle, stream, sub(text, from, last))
      end
      if hides then
        out = out .. shown
      end
      from = last + 1
    end
    rest = sub(text, from)
    if size == 0 or #rest > MOST_OF_AN_EVENT then
      -- The last chunk is empty: what nothing will complete any more goes out as it is.
      out, rest = out .. rest, ""
      note_progress(handle, stream)
    end
    if hides and out ~= came then
      chunk:setBytes(out)
    end
  end
end

-- Look at the end of an answer that is no stream of tokens, where servers say what it cost.
local function look(handle)
  local tail, is_first = "", true
  for chunk in handle:bodyChunks() do
    local text = tail .. chunk:getBytes(0, chunk:length())
    if is_first and find(text, '^%s*{%s*"error"%s*:%s*[{"]') then
      metadata_of(handle):set(NAMESPACE, "error", true)
    end
    is_first = false
    note_finish(handle, text)
    note_usage(handle, text)
    tail = sub(text, -TAIL)
  end
end

function envoy_on_response(handle)
  local request, headers = metadata_of(handle):get(NAMESPACE), handle:headers()
  if not request or headers:get(":status") ~= "200" or headers:get("content-encoding") then
    return
  end
  local kind = headers:get("content-type") or ""
  if request.estimate and find(kind, "^text/event%-stream") then
    follow(handle, request)
  elseif find(kind, "json", 1, true) or find(kind, "^text/event%-stream") then
    look(handle)
  end
end
