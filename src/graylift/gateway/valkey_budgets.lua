-- Charges the budgets of one request, or settles them: what `limits/ledger.py` does in memory, in one step for all
-- gateways that share these budgets. The time is the server's, so their clocks need not agree.
--
-- KEYS: the budgets. ARGV: `reserve` or `settle`, the reservation, the tokens used ('' if nobody knows), and for each
-- budget its unit, limit, per_s and the amount. A budget that is full again is forgotten.
--
-- Gives {1 if granted else 0, what is left in each budget}: after the charges if granted, else before.

local what, reservation, used = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now_s = time[1] + time[2] / 1e6

local charges = {}
for index, key in ipairs(KEYS) do
  local at = 4 * index
  charges[index] = {
    key = key,
    unit = ARGV[at],
    limit = tonumber(ARGV[at + 1]),
    per_s = tonumber(ARGV[at + 2]),
    amount = tonumber(ARGV[at + 3]),
  }
end

local function level(charge)
  local kept = redis.call('HMGET', charge.key, 'level', 'at_s')
  if not kept[1] then
    return charge.limit
  end
  local passed_s = math.max(0, now_s - tonumber(kept[2]))
  return math.min(charge.limit, tonumber(kept[1]) + passed_s * charge.limit / charge.per_s)
end

local function keep(charge, level)
  local full_s = (charge.limit - level) * charge.per_s / charge.limit
  redis.call('HSET', charge.key, 'level', string.format('%.17g', level), 'at_s', string.format('%.17g', now_s))
  redis.call('PEXPIRE', charge.key, math.ceil(full_s * 1000) + 1000)
end

local function left(charge)
  if charge.unit == 'concurrent' then
    redis.call('ZREMRANGEBYSCORE', charge.key, '-inf', string.format('%.17g', now_s))
    return charge.limit - redis.call('ZCARD', charge.key)
  end
  return level(charge)
end

local function make(charge)
  if charge.unit == 'concurrent' then
    redis.call('ZADD', charge.key, string.format('%.17g', now_s + charge.per_s), reservation)
    redis.call('PEXPIRE', charge.key, math.ceil(charge.per_s * 1000) + 1000)
  else
    keep(charge, level(charge) - charge.amount)
  end
end

local function settle(charge)
  if charge.unit == 'concurrent' then
    redis.call('ZREM', charge.key, reservation)
  elseif charge.unit == 'tokens' and used then
    keep(charge, math.min(charge.limit, level(charge) + charge.amount - used))
  end
end

if what == 'settle' then
  for _, charge in ipairs(charges) do
    settle(charge)
  end
  return {}
end

local granted = 1
for _, charge in ipairs(charges) do
  if left(charge) < charge.amount then
    granted = 0
  end
end
local answer = { granted }
for index, charge in ipairs(charges) do
  if granted == 1 then
    make(charge)
  end
  answer[index + 1] = string.format('%.17g', left(charge))
end
return answer
