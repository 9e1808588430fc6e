-- Return what could be routed now: { version of the controls, lanes, { job, ... }, { runner, busy slots, ... }, { pool, floor, { tenant, used, ... }, ... } }
--
-- KEYS[1]: any key of the namespace.  ARGV[1]: prefix.
-- ARGV[2]: MessagePack of { now, most, lanes_at_once, lanes, runners }: the moment (microseconds), how many jobs of each lane and how many lanes to look
-- at, the lanes wanted (none: all), and the slots of each living runner: { { runner, slots }, ... }.
-- `lanes` in the answer is { lane, score of its first job, ... }. Where there are more lanes than may be looked at once, no job is returned: choose
-- lanes, ask again. Jobs of a lane come in the order of their scores, whatever queue they wait in.
-- The cost depends on the number of lanes and of free slots, not on how many jobs wait.
local prefix, wish = ARGV[1], cmsgpack.unpack(ARGV[2])
local version = redis.call('HGET', prefix .. 'controls', 'version') or '0'
local free = 0
for _, runner in ipairs(wish.runners) do
  free = free + math.max(0, runner[2] - tonumber(redis.call('HGET', prefix .. 'busy', runner[1]) or '0'))
end
if free <= 0 then
  return { version, {}, {}, {}, {} }
end
local most = math.min(wish.most, free)

for _, queue in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'resting', '-inf', wish.now, 'LIMIT', 0, 100)) do
  redis.call('ZREM', prefix .. 'resting', queue)
  index(prefix, queue, true)
end

local lanes, wanted = {}, wish.lanes
if #wanted == 0 then
  wanted = redis.call('SMEMBERS', prefix .. 'lanes')
  for _, lane in ipairs(wanted) do
    local head = redis.call('ZRANGE', prefix .. 'lane:' .. lane, 0, 0, 'WITHSCORES')
    lanes[#lanes + 1] = lane
    lanes[#lanes + 1] = head[2] or '0'
  end
  if #wanted > wish.lanes_at_once then
    wanted = {}
  end
end

local KEYED_AT_ONCE = 8 -- A limit lets few jobs of one key go; the queues behind it are not to be hidden by a long one.

local function earlier(a, b)
  return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
end

local function first_jobs(lane)
  local found, bound = {}, nil
  local queues = redis.call('ZRANGE', prefix .. 'lane:' .. lane, 0, most - 1, 'WITHSCORES')
  for at = 1, #queues, 2 do
    if bound and #found >= most and tonumber(queues[at + 1]) > bound then
      break
    end
    local count = string.sub(queues[at], -1) == '\n' and most or math.min(most, KEYED_AT_ONCE)
    local entries = redis.call('ZRANGE', prefix .. 'ready:' .. queues[at], 0, count - 1, 'WITHSCORES')
    for entry = 1, #entries, 2 do
      found[#found + 1] = { tonumber(entries[entry + 1]), entries[entry] }
    end
    if #found >= most then
      table.sort(found, earlier)
      bound = found[most][1]
    end
  end
  table.sort(found, earlier)
  return found
end

local jobs = {}
for _, lane in ipairs(wanted) do
  local found = first_jobs(lane)
  local keys = {}
  for place = 1, math.min(most, #found) do
    keys[place] = prefix .. 'job:' .. found[place][2]
  end
  if #keys > 0 then
    for _, job in ipairs(redis.call('MGET', unpack(keys))) do
      jobs[#jobs + 1] = job
    end
  end
end

local shares = {}
for _, pool in ipairs(redis.call('SMEMBERS', prefix .. 'pools')) do
  shares[#shares + 1] = pool
  shares[#shares + 1] = redis.call('HGET', prefix .. 'floors', pool) or '0'
  shares[#shares + 1] = redis.call('ZRANGE', prefix .. 'used:' .. pool, 0, -1, 'WITHSCORES')
end
return { version, lanes, jobs, redis.call('HGETALL', prefix .. 'busy'), shares }
