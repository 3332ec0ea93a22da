-- Draws one from each of a few budgets, or from none of them (GCRA).
-- KEYS: the budgets. ARGV: for each, one request's worth of time and the whole budget's, in microseconds.
-- Returns 0, 0 where all had one; else the number of the first that had none, and the microseconds until it has.
local clock = redis.call('TIME')
-- since 2026: a double then has room for fractions of a microsecond
local now = (clock[1] - 1767225600) * 1000000 + clock[2]
local full_at = {}
for i, key in ipairs(KEYS) do
    local each, whole = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    -- what is no number is as good as nothing, be it of another type; NaN is no number
    local found = redis.pcall('GET', key)
    local at = type(found) == 'string' and tonumber(found) or now
    if at ~= at then
        at = now
    end
    -- never emptier than empty, also where the clock was set back
    at = math.min(math.max(at, now), now + whole)
    local wait = at + each - whole - now
    -- a thousandth of a microsecond is what rounding adds
    if wait > 0.001 then
        return { i, math.ceil(wait) }
    end
    full_at[i] = at + each
end
for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.4f', full_at[i]), 'PX', math.ceil((full_at[i] - now) / 1000))
end
return { 0, 0 }
