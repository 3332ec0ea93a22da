-- Draws one from each of a few budgets, or from none of them (GCRA).
-- KEYS: the budgets; of an attempt whose end will be told, behind them for each what is under way on it.
-- ARGV: for each budget, one request's worth of time and the whole budget's, in microseconds.
-- Returns 0, 0, 0 and the second at which such an attempt is forgotten, where all had one; else the number of the first
-- that had none, the microseconds until it has, the attempts that are under way on it, and 0.
local clock = redis.call('TIME')
-- since 2026: a double then has room for fractions of a microsecond
local now = (clock[1] - 1767225600) * 1000000 + clock[2]
local second = math.floor(now / 1000000)
local budgets = #ARGV / 2
local is_attempt = #KEYS > budgets
local full_at = {}
for i = 1, budgets do
    local each, whole = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    -- what is no number is as good as nothing, be it of another type; NaN is no number
    local found = redis.pcall('GET', KEYS[i])
    local at = type(found) == 'string' and tonumber(found) or now
    if at ~= at then
        at = now
    end
    -- never emptier than empty, also where the clock was set back
    at = math.min(math.max(at, now), now + whole)
    local wait = at + each - whole - now
    -- a thousandth of a microsecond is what rounding adds
    if wait > 0.001 then
        local count = 0
        if is_attempt then
            local _
            _, count = read_under_way(KEYS[budgets + i], second)
        end
        return { i, math.ceil(wait), count, 0 }
    end
    full_at[i] = at + each
end
for i = 1, budgets do
    redis.call('SET', KEYS[i], string.format('%.4f', full_at[i]), 'PX', math.ceil((full_at[i] - now) / 1000))
end
if not is_attempt then
    return { 0, 0, 0, 0 }
end
local forgotten_at = second + kept
for i = 1, budgets do
    local ends = read_under_way(KEYS[budgets + i], second)
    ends[forgotten_at] = (ends[forgotten_at] or 0) + 1
    write_under_way(KEYS[budgets + i], ends)
end
return { 0, 0, 0, forgotten_at }
