-- Shared by the scripts that follow it: the index of the ready queues, the end of leases, the outbox.
--
-- ready:QUEUE     sorted set: job id -> score                the jobs of a queue
-- lane:LANE       sorted set: queue -> score of its head      the queues of a lane that may be looked at
-- lanes           set: lanes that have such queues
-- parked:SUBJECT  set: queues that a limit stopped            woken when a lease under the subject ends
-- resting         sorted set: queue -> moment                 queues that a rate stopped, woken by time
-- depths          hash: pool, type, class and tenant -> jobs   how many wait in all ready queues
-- A queue's name is its lane, a newline and its keys.

local function lane_of(queue)
  return string.match(queue, '^[^\n]*')
end

-- Bring the index of a queue up to date; one that is parked or rests is only indexed again when `wake` is true.
local function index(prefix, queue, wake)
  local lane = lane_of(queue)
  local key = prefix .. 'lane:' .. lane
  local head = redis.call('ZRANGE', prefix .. 'ready:' .. queue, 0, 0, 'WITHSCORES')
  if #head == 0 then
    redis.call('ZREM', key, queue)
  elseif wake or redis.call('ZSCORE', key, queue) then
    redis.call('ZADD', key, head[2], queue)
  end
  if redis.call('EXISTS', key) == 1 then
    redis.call('SADD', prefix .. 'lanes', lane)
  else
    redis.call('SREM', prefix .. 'lanes', lane)
  end
end

-- Count the jobs that wait, by name, as they enter (1) and leave (-1) their queues.
local function deepen(prefix, name, by)
  if redis.call('HINCRBY', prefix .. 'depths', name, by) <= 0 then
    redis.call('HDEL', prefix .. 'depths', name)
  end
end

local function wake_parked(prefix, subject)
  local key = prefix .. 'parked:' .. subject
  for _, queue in ipairs(redis.call('SMEMBERS', key)) do
    index(prefix, queue, true)
  end
  redis.call('DEL', key)
  redis.call('SREM', prefix .. 'parked', subject)
end

-- End a lease: its slots and its places under limits are free. One that is not held any more was ended before.
local function release(prefix, runner, attempt, slots, holds)
  if redis.call('HDEL', prefix .. 'held:' .. runner, attempt) == 0 then
    return
  end
  if redis.call('HINCRBY', prefix .. 'busy', runner, -slots) <= 0 then
    redis.call('HDEL', prefix .. 'busy', runner)
  end
  for _, subject in ipairs(holds) do
    redis.call('SREM', prefix .. 'running:' .. subject, attempt)
    wake_parked(prefix, subject)
  end
end


-- Keep records in the outbox of an instance. One that was taken for dead meanwhile is known again, so that somebody finds what it leaves.
local function keep(prefix, instance, entry, records)
  redis.call('HSET', prefix .. 'outbox:' .. instance, entry, records)
  redis.call('ZADD', prefix .. 'instances', 'NX', 0, instance)
end
