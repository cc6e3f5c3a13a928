-- The ledger's only writer. Every operation is atomic, idempotent by pod UID, and refuses to work on a ledger whose
-- life (epoch) has ended.
--
-- KEYS  1 epoch    text "<run_id>/<replication id>:<random>": this life of the ledger; valid only in the Redis process
--                  that wrote it, and only until its replication id changes: when it is promoted after having been
--                  another's replica, and also when it gets its first replica
--       2 claims   hash: pod UID -> "<deadline>|<claim JSON>"; deadline in ms of Redis TIME, 0 for none
--       3 used     hash: "<node>/<GPU UUID>#u" -> units, "...#s" -> seats
--       4 log      stream: entry "<seq>-0" for every change: uid, value ("" when the claim was dropped)
--       5 seq      number of the last change
--       6 holds    sorted set: pod UID -> deadline, of the claims that are only held
--       7 rebuild  "<life><deadline>|<token>" of the replica that is rebuilding
-- ARGV  1 operation, 2 epoch and 3 number of the last change that the caller knows, 4... arguments of the operation
--
-- Answers begin with a word: "ok", or why not. "lost": no valid ledger here, somebody has to rebuild it. "epoch": a
-- valid one, but another than the caller knows; it has to take a snapshot. Otherwise there follow the number of the
-- last change, the time in ms, and the changes that the caller does not know (at most 1000), its own among them.
--
-- A script that fails half way is not rolled back: input is read and checked before anything is written because of it.

local EPOCH, CLAIMS, USED, LOG, SEQ, HOLDS, REBUILD = unpack(KEYS)
local MAX_AMOUNT = 2 ^ 31 - 1 -- of units or seats, in one claim on one GPU
local LOG_LENGTH = 20000 -- a replica that is further behind takes a snapshot
local PAGE = 1000
local LONGEST_HOLD = 60000 -- ms; a deadline further ahead was set before the clock jumped back

local operation, known_epoch, known_seq = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not known_seq or known_seq < 0 then
  return redis.error_reply('the number of the last change is no number')
end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local replication = redis.call('INFO', 'replication')
local is_master = string.match(replication, 'role:(%w+)') == 'master'
local life = run_id .. '/' .. string.match(replication, 'master_replid:(%w+)') .. ':'
local epoch = redis.call('GET', EPOCH)
local valid = is_master and epoch and string.sub(epoch, 1, #life) == life
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function integer(number)
  return string.format('%.0f', number)
end

-- Claim JSON -> { text, state, taken }; taken: "<node>/<GPU UUID>" -> {units, seats}.
local function read_claim(text)
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
  return { text = text, state = claim.state, taken = taken }
end

local NONE = { text = '', state = 'none', taken = {} }

local function stored_claim(uid)
  local value = redis.call('HGET', CLAIMS, uid)
  if not value then
    return NONE
  end
  return read_claim(string.sub(value, string.find(value, '|', 1, true) + 1))
end

local function stored_seq()
  return redis.call('GET', SEQ) or '0'
end

local function add(field, delta)
  if delta ~= 0 and redis.call('HINCRBY', USED, field, integer(delta)) == 0 then
    redis.call('HDEL', USED, field)
  end
end

local function account(taken, sign)
  for key, sum in pairs(taken) do
    add(key .. '#u', sign * sum[1])
    add(key .. '#s', sign * sum[2])
  end
end

-- The one way in which a claim changes: `after` may be NONE; lifetime in ms, 0 for none.
local function change(uid, before, after, lifetime)
  local deadline = lifetime > 0 and now_ms + lifetime or 0
  local value = after.text ~= '' and integer(deadline) .. '|' .. after.text or ''
  if value == '' then
    redis.call('HDEL', CLAIMS, uid) -- first: a Redis that is full refuses a script whose first write may need memory
  else
    redis.call('HSET', CLAIMS, uid, value)
  end
  account(before.taken, -1)
  account(after.taken, 1)
  if after.state == 'held' then
    redis.call('ZADD', HOLDS, integer(deadline), uid)
  else
    redis.call('ZREM', HOLDS, uid)
  end
  local seq = redis.call('INCR', SEQ)
  redis.call('XADD', LOG, 'MAXLEN', '~', LOG_LENGTH, integer(seq) .. '-0', 'uid', uid, 'value', value)
end

-- nil where the GPUs have room for `after` in place of `before`, else the key and what is free of the first that
-- has not. Limits: "<node>/<GPU UUID>" -> [units, seats] of every GPU that the claim takes.
local function missing_room(before, after, limits)
  for key, sum in pairs(after.taken) do
    local own = before.taken[key] or { 0, 0 }
    local units = limits[key][1] - tonumber(redis.call('HGET', USED, key .. '#u') or '0') + own[1]
    local seats = limits[key][2] - tonumber(redis.call('HGET', USED, key .. '#s') or '0') + own[2]
    if sum[1] > units or sum[2] > seats then
      return { key, integer(units), integer(seats) }
    end
  end
end

-- "<deadline>|<token>" of who rebuilds in this life, or ''
local rebuilding = redis.call('GET', REBUILD) or ''
rebuilding = string.sub(rebuilding, 1, #life) == life and string.sub(rebuilding, #life + 1) or ''

if operation == 'begin' then -- token, lifetime in ms: become the one replica that rebuilds a lost ledger
  if valid then
    return { 'valid', epoch }
  end
  local policy = string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:(%S+)')
  if string.sub(policy, 1, 7) == 'allkeys' then
    return { 'unsafe', policy } -- it would throw away one key of the ledger and keep the others
  end
  if string.match(rebuilding, '|(.*)') == ARGV[4] then -- who is at it takes more time
    redis.call('SET', REBUILD, life .. integer(now_ms + tonumber(ARGV[5])) .. '|' .. ARGV[4])
    return { 'ok' }
  end
  -- A token of another life is nobody's, and so is one whose deadline has passed, or is further ahead than its
  -- lifetime, because the clock jumped back.
  local deadline = tonumber(string.match(rebuilding, '^(%d+)|') or '0')
  if now_ms < deadline and deadline <= now_ms + tonumber(ARGV[5]) then
    return { 'busy' }
  end
  redis.call('SET', REBUILD, life .. integer(now_ms + tonumber(ARGV[5])) .. '|' .. ARGV[4])
  -- An old epoch may have come back with an old snapshot.
  redis.call('DEL', EPOCH, CLAIMS, USED, LOG, SEQ, HOLDS)
  return { 'ok' }
end

if operation == 'fill' then -- token, then uid and claim JSON of some of what is true; each uid once
  if string.match(rebuilding, '|(.*)') ~= ARGV[4] then
    return { 'busy' }
  end
  local claims = {}
  for i = 5, #ARGV, 2 do
    claims[ARGV[i]] = read_claim(ARGV[i + 1])
    if claims[ARGV[i]].state == 'held' then
      error('a rebuild writes no holds')
    end
  end
  for uid, claim in pairs(claims) do
    account(stored_claim(uid).taken, -1) -- a call that is repeated counts once
    redis.call('HSET', CLAIMS, uid, '0|' .. claim.text)
    account(claim.taken, 1)
  end
  return { 'ok' }
end

if operation == 'commit' then -- token, random: begin the new life
  if string.match(rebuilding, '|(.*)') ~= ARGV[4] then
    return { 'busy' }
  end
  redis.call('SET', EPOCH, life .. ARGV[5])
  redis.call('DEL', REBUILD)
  return { 'ok' }
end

if not valid then
  return { 'lost' }
end

if operation == 'snapshot' then
  return { 'ok', stored_seq(), integer(now_ms), {}, epoch, redis.call('HGETALL', CLAIMS) }
end

if epoch ~= known_epoch then
  return { 'epoch' }
end

-- A hold that has expired is no claim any more, for nobody. (What the caller knew before that is another matter.)
local seq_before = tonumber(stored_seq())
local latest = integer(now_ms + LONGEST_HOLD)
for _, range in ipairs({ { '-inf', integer(now_ms) }, { '(' .. latest, '+inf' } }) do
  for _, uid in ipairs(redis.call('ZRANGEBYSCORE', HOLDS, range[1], range[2], 'LIMIT', 0, PAGE)) do
    change(uid, stored_claim(uid), NONE, 0)
  end
end

local function answer(word, ...)
  local changes = redis.call('XRANGE', LOG, integer(known_seq + 1) .. '-0', '+', 'COUNT', PAGE)
  return { word, stored_seq(), integer(now_ms), changes, ... }
end

local uid = ARGV[4]

if operation == 'sync' then
  return answer('ok')
end

if operation == 'hold' then
  -- uid, claim JSON, lifetime in ms, limits JSON: only on what the caller has seen, because it chose by that, save that
  -- holds have expired; a hold that the pod has already is moved
  if seq_before ~= known_seq then
    return answer('behind')
  end
  local before, after = stored_claim(uid), read_claim(ARGV[5])
  if before.state ~= 'none' and before.state ~= 'held' then
    return answer('differs', redis.call('HGET', CLAIMS, uid))
  end
  local missing = missing_room(before, after, cjson.decode(ARGV[7]))
  if missing then
    return answer('full', unpack(missing))
  end
  change(uid, before, after, tonumber(ARGV[6]))
  return answer('ok')
end

if operation == 'reserve' then
  -- uid, claim JSON, lifetime in ms, limits JSON: in place of nothing, of the pod's hold, or of the same reservation,
  -- whose life it prolongs
  local before, after = stored_claim(uid), read_claim(ARGV[5])
  if before.state ~= 'none' and before.state ~= 'held' and before.text ~= after.text then
    return answer('differs', redis.call('HGET', CLAIMS, uid))
  end
  local missing = missing_room(before, after, cjson.decode(ARGV[7]))
  if missing then
    return answer('full', unpack(missing))
  end
  change(uid, before, after, tonumber(ARGV[6]))
  return answer('ok')
end

if operation == 'confirm' or operation == 'correct' or operation == 'release' then
  -- uid, expected claim JSON ("" for none), claim JSON ("" for release): what is true is written whatever the limits;
  -- "already" where it is there
  local before, expected, text = stored_claim(uid), ARGV[5], ARGV[6]
  if before.text == text then
    return answer('already')
  end
  if expected ~= before.text then
    return answer('differs', redis.call('HGET', CLAIMS, uid) or '')
  end
  change(uid, before, text ~= '' and read_claim(text) or NONE, 0)
  return answer('ok')
end

return redis.error_reply('unknown operation ' .. tostring(operation))
