-- The ledger's only writer. Every operation is atomic, and refuses to work on a ledger whose life (epoch) has ended.
--
-- KEYS  1 epoch    text "<run_id>:<random>": this life of the ledger; valid only in the Redis process that wrote it
--       2 claims   hash: pod UID -> "<deadline>|<claim JSON>"; deadline in ms of Redis TIME, 0 for none
--       3 used     hash: "<node>/<GPU UUID>#u" -> units, "...#s" -> seats
--       4 log      stream: entry "<seq>-0" for every change: uid, value ("" when the claim was dropped)
--       5 seq      number of the last change
--       6 rebuild  token of the replica that is rebuilding; expires with it
-- ARGV  1 operation, 2 epoch that the caller knows, 3... arguments of the operation
--
-- Answers begin with a word: "ok", or why not. "lost": no valid ledger here, somebody has to rebuild it.
-- "epoch": a valid one, but another than the caller knows; it has to take a snapshot.

local EPOCH, CLAIMS, USED, LOG, SEQ, REBUILD = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local MAX_AMOUNT = 2 ^ 31 - 1 -- of units or seats, in one claim on one GPU
local LOG_LENGTH = 20000 -- a replica that is further behind takes a snapshot

local operation, known_epoch = ARGV[1], ARGV[2]
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local epoch = redis.call('GET', EPOCH)
local valid = epoch and string.sub(epoch, 1, #run_id + 1) == run_id .. ':'

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function integer(number)
  return string.format('%.0f', number)
end

local function claim_text(value)
  return string.sub(value, string.find(value, '|', 1, true) + 1)
end

-- "<node>/<GPU UUID>" -> {units, seats} that a claim takes. Raises before anything is written: a script that fails
-- half way is not rolled back, so every number is checked before the first write.
local function amounts(text)
  local claim, taken = cjson.decode(text), {}
  for _, shares in pairs(claim.plan.containers) do
    for _, share in ipairs(shares) do
      local key = claim.node .. '/' .. share.gpu
      local sum = taken[key] or { 0, 0 }
      taken[key] = { sum[1] + share.units, sum[2] + share.seats }
    end
  end
  for key, sum in pairs(taken) do
    for _, number in ipairs(sum) do
      if not (number >= 0 and number <= MAX_AMOUNT and number % 1 == 0) then
        error('the claim takes an impossible amount of ' .. key)
      end
    end
  end
  return taken
end

local function add(field, delta)
  if delta ~= 0 and redis.call('HINCRBY', USED, field, integer(delta)) == 0 then
    redis.call('HDEL', USED, field)
  end
end

local function apply(taken, sign)
  for key, sum in pairs(taken) do
    add(key .. '#u', sign * sum[1])
    add(key .. '#s', sign * sum[2])
  end
end

local function log(uid, value)
  local seq = redis.call('INCR', SEQ)
  redis.call('XADD', LOG, 'MAXLEN', '~', LOG_LENGTH, integer(seq) .. '-0', 'uid', uid, 'value', value)
end

local function stored_seq()
  return redis.call('GET', SEQ) or '0'
end

if operation == 'begin' then -- token, lifetime in ms: become the one replica that rebuilds a lost ledger
  if valid then
    return { 'valid', epoch }
  end
  if redis.call('SET', REBUILD, ARGV[3], 'NX', 'PX', ARGV[4]) then
    redis.call('DEL', EPOCH) -- an old epoch may have come back with an old snapshot
    return { 'ok' }
  end
  return { 'busy' }
end

if operation == 'commit' then -- token, random, then uid and claim JSON of everything that is true
  if redis.call('GET', REBUILD) ~= ARGV[3] then
    return { 'busy' }
  end
  local taken = {}
  for i = 5, #ARGV, 2 do
    taken[i] = amounts(ARGV[i + 1])
  end
  redis.call('DEL', CLAIMS, USED, LOG, SEQ)
  for i = 5, #ARGV, 2 do
    redis.call('HSET', CLAIMS, ARGV[i], '0|' .. ARGV[i + 1])
    apply(taken[i], 1)
  end
  redis.call('SET', EPOCH, run_id .. ':' .. ARGV[4])
  redis.call('DEL', REBUILD)
  return { 'ok' }
end

if not valid then
  return { 'lost' }
end

if operation == 'snapshot' then
  return { 'ok', epoch, stored_seq(), redis.call('HGETALL', CLAIMS) }
end

if epoch ~= known_epoch then
  return { 'epoch' }
end

if operation == 'sync' then -- last change that the caller has: the changes since
  local from = tonumber(ARGV[3]) + 1
  local entries = redis.call('XRANGE', LOG, integer(from) .. '-0', '+', 'COUNT', 1000)
  return { 'ok', stored_seq(), integer(now_ms()), entries }
end

if operation == 'put' then
  -- uid, expected ("" absent, "*" anything, or the claim JSON that is there), claim JSON, lifetime in ms (0: none),
  -- limits JSON ("" none): "<node>/<GPU UUID>" -> [units, seats] of every GPU that the claim takes
  local uid, expected, text, lifetime, limits = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
  local current = redis.call('HGET', CLAIMS, uid)
  local current_text = current and claim_text(current) or ''
  if expected ~= '*' and expected ~= current_text then
    return { 'differs', current or '' }
  end
  local before, after = current and amounts(current_text) or {}, amounts(text)
  if limits ~= '' then
    local limit = cjson.decode(limits)
    for key, sum in pairs(after) do
      local own = before[key] or { 0, 0 }
      local units = tonumber(redis.call('HGET', USED, key .. '#u') or '0') - own[1]
      local seats = tonumber(redis.call('HGET', USED, key .. '#s') or '0') - own[2]
      if units + sum[1] > limit[key][1] or seats + sum[2] > limit[key][2] then
        return { 'full', key, integer(limit[key][1] - units), integer(limit[key][2] - seats) }
      end
    end
  end
  local value = (lifetime > 0 and integer(now_ms() + lifetime) or '0') .. '|' .. text
  apply(before, -1)
  apply(after, 1)
  redis.call('HSET', CLAIMS, uid, value)
  log(uid, value)
  return { 'ok' }
end

if operation == 'drop' then -- uid, expected claim JSON: dropping what is gone already is no error
  local uid, expected = ARGV[3], ARGV[4]
  local current = redis.call('HGET', CLAIMS, uid)
  if not current then
    return { 'ok' }
  end
  if claim_text(current) ~= expected then
    return { 'differs', current }
  end
  apply(amounts(expected), -1)
  redis.call('HDEL', CLAIMS, uid)
  log(uid, '')
  return { 'ok' }
end

return redis.error_reply('unknown operation ' .. tostring(operation))
