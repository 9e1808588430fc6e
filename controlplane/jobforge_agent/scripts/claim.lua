-- Lease jobs to runners, each if it still waits, the runner still has the slots, and no limit is reached.
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { outbox, version, claims = { { job id, queue, runner, capacity, slots, attempt, job, due, partition, record, pool, tenant,
-- cost, limits = { { subject, most running or -1, most starts or -1, period in microseconds }, ... }, score, depth }, ... } }; job and record are
-- numbers of further arguments. A job that moved in its queue since it was looked at is refused: it is looked at again.
-- Claims are in the order in which the jobs have their turns. Returns 1 or 0 per claim; an accepted one is in the outbox until its record is
-- acknowledged. All are refused when the controls have another version than the caller's. Where a job moved forward since, or another router filled
-- the runner that one which still waits was to go to, that claim and all behind it in its pool are answered with 2: what is fresher does not pass,
-- look again.
--
-- Starts are counted by the store's own clock: those of the instances differ, and one that was stopped comes back with a time of long ago.
local prefix, batch = ARGV[1], cmsgpack.unpack(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answers = {}
if (redis.call('HGET', prefix .. 'controls', 'version') or '0') ~= batch.version then
  for at = 1, #batch.claims do
    answers[at] = 0
  end
  return answers
end

local function allowed(limits)
  for _, limit in ipairs(limits) do
    if limit[2] >= 0 and redis.call('SCARD', prefix .. 'running:' .. limit[1]) >= limit[2] then
      return false
    end
    if limit[3] >= 0 then
      local key = prefix .. 'starts:' .. limit[1]
      redis.call('ZREMRANGEBYSCORE', key, '-inf', now - limit[4])
      if redis.call('ZCARD', key) >= limit[3] then
        return false
      end
    end
  end
  return true
end

-- Start-time fair queueing: a tenant's turn is where it stood, or the present turn if that is later.
local function charge(pool, tenant, cost)
  local floor = tonumber(redis.call('HGET', prefix .. 'floors', pool) or '0')
  local start = math.max(floor, tonumber(redis.call('ZSCORE', prefix .. 'used:' .. pool, tenant) or '0'))
  redis.call('SADD', prefix .. 'pools', pool)
  redis.call('HSET', prefix .. 'floors', pool, string.format('%.9f', start))
  redis.call('ZADD', prefix .. 'used:' .. pool, start + cost, tenant)
  redis.call('ZREMRANGEBYSCORE', prefix .. 'used:' .. pool, '-inf', start) -- Whoever stands there begins at the present turn anyway.
end

local touched, look_again = {}, {}
for at, claim in ipairs(batch.claims) do
  local id, queue, runner, capacity, slots, attempt = claim[1], claim[2], claim[3], claim[4], claim[5], claim[6]
  local busy = tonumber(redis.call('HGET', prefix .. 'busy', runner) or '0')
  answers[at] = 0
  local score = redis.call('ZSCORE', prefix .. 'ready:' .. queue, id)
  local moved_forward = score and tonumber(score) < claim[15]
  local waits = score and tonumber(score) == claim[15] and allowed(claim[14])
  look_again[claim[11]] = look_again[claim[11]] or moved_forward or (waits and busy + slots > capacity)
  if look_again[claim[11]] then
    answers[at] = 2
  elseif waits then
    redis.call('ZREM', prefix .. 'ready:' .. queue, id)
    deepen(prefix, claim[16], -1)
    redis.call('HINCRBY', prefix .. 'busy', runner, slots)
    redis.call('HSET', prefix .. 'held:' .. runner, attempt, id)
    redis.call('SET', prefix .. 'job:' .. id, ARGV[claim[7]])
    if claim[8] > 0 then
      redis.call('ZADD', prefix .. 'due:' .. claim[9], claim[8], id)
    else
      redis.call('ZREM', prefix .. 'due:' .. claim[9], id)
    end
    keep(prefix, batch.outbox, attempt, ARGV[claim[10]])
    for _, limit in ipairs(claim[14]) do
      redis.call('SADD', prefix .. 'running:' .. limit[1], attempt)
      if limit[3] >= 0 then
        redis.call('ZADD', prefix .. 'starts:' .. limit[1], now, attempt)
        redis.call('PEXPIRE', prefix .. 'starts:' .. limit[1], math.ceil(limit[4] / 1000))
      end
    end
    charge(claim[11], claim[12], claim[13])
    touched[queue] = true
    answers[at] = 1
  end
end
for queue in pairs(touched) do
  index(prefix, queue, false)
end
return answers
