-- One step of taking jobs of a topic.
-- KEYS: the stream, the sorted set of jobs that are not due, the stream of dead letters.
-- ARGV: group, consumer, now in ms, how many jobs at most, how long a taken job is its taker's in ms, how often it is taken at
-- most, 1 to look for jobs whose taker has not ended them, the length of what stands before a payload in the sorted set.
-- Answers the stream's last id, then id, payload and tries of each job. Fails with NOGROUP if the group is not there.
local stream, delayed, dead = KEYS[1], KEYS[2], KEYS[3]
local group, consumer, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
local take_ms, tries_max = ARGV[5], tonumber(ARGV[6])

for _, member in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', ARGV[3], 'LIMIT', 0, most)) do
  redis.call('XADD', stream, '*', 'p', string.sub(member, tonumber(ARGV[8]) + 1))
  redis.call('ZREM', delayed, member)
end

local jobs = {}
local function add(entry, tries)
  jobs[#jobs + 1] = entry[1]
  jobs[#jobs + 1] = entry[2][2]
  jobs[#jobs + 1] = tries
end

local taken = 0
if ARGV[7] == '1' then
  for _, pending in ipairs(redis.call('XPENDING', stream, group, 'IDLE', take_ms, '-', '+', most)) do
    local id, tries = pending[1], pending[4]
    local entry = redis.call('XRANGE', stream, id, id)[1]
    if entry and tries < tries_max then
      add(redis.call('XCLAIM', stream, group, consumer, take_ms, id)[1], tries + 1)
      taken = taken + 1
    else
      if entry then
        redis.call('XADD', dead, '*', 'p', entry[2][2], 'id', id, 'tries', tries)
      end
      redis.call('XACK', stream, group, id)
      redis.call('XDEL', stream, id)
    end
  end
end

if taken < most then
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', most - taken, 'STREAMS', stream, '>')
  if read then
    for _, entry in ipairs(read[1][2]) do
      add(entry, 1)
    end
  end
end

local last = '0-0'
local info = redis.call('XINFO', 'STREAM', stream)
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' then last = info[at + 1] end
end
return { last, jobs }
