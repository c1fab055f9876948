-- Who came how far through the steps of a funnel, and when: a row per counted attempt and step that it reached.
-- `funnel` counts these rows.
--
-- `warehouse/funnel.py` fills in what stands behind a dollar sign: columns by name in the macro that is published, the
-- user's expressions in `journeys funnel`. It repeats chains_of_k for every step.
--
-- A history is what one chain may use: a customer's touchpoints or, with `hold`, those of them that share one value. A
-- chain is one touchpoint per step, in order. The latest chain that has come to a step is the one to go on with: none
-- stays within the window for longer, and none passed the step that an exclusion counts from later. So one ASOF join
-- per step decides exactly what ClickHouse's windowFunnel decides.
create or replace $kind $name(
    steps,
    within := null,
    mode := 'default',
    counting := 'unique',
    hold := null,
    exclude := [],
    exclude_after := 1,
    exclude_before := null,
    breakdown := null,
    breakdown_at := 'first_touch',
    since := null,
    until := null,
    touches := 'inbound'
) as table
with recursive
options as (
    select
        coalesce(epoch_us(cast(within as interval)), conversion_window_seconds * 1000000) as window_us,
        timezone('UTC', local_midnight(since, reporting_timezone)) as since_at,
        timezone('UTC', local_midnight(until, reporting_timezone)) as until_at,
        data_as_of,
        breakdown_limit
    from build_parameters
),

step_names as (
    select
        unnest(steps) as name,
        cast(generate_subscripts(steps, 1) as utinyint) as step
),

scope as not materialized (
    select
        touchpoint.*,
        $held as held
    from touchpoints as touchpoint
    where
        touchpoint.customer_key is not null
        and (touches = 'any' or touchpoint.direction = touches)
        and (since is null or touchpoint.occurred_at >= (select since_at from options))
),

-- A row per touchpoint and step it serves. Only the first step has to lie before `until`. Which order a touchpoint
-- converted follows from its customer and time; ids are read only where that may not be enough.
matched as materialized (
    select
        touchpoint.customer_key, touchpoint.held, touchpoint.occurred_at, step_names.step,
        touchpoint.is_order_conversion,
        case when $orders_need_ids and touchpoint.is_order_conversion then touchpoint.event_id end as order_event_id
    from scope as touchpoint
    inner join step_names on $matches
    where
        touchpoint.held is not null
        and (
            until is null or step_names.step > 1 or mode = 'unordered'
            or touchpoint.occurred_at < (select until_at from options)
        )
),

-- Numbered, because numbers sort fast.
histories as materialized (
    select customer_key, held, cast(row_number() over () as uinteger) as history
    from (select distinct customer_key, held from matched where step = 1 or mode = 'unordered')
),

-- The second half is empty. DuckDB joins by a loop where it expects fewer than 64 rows, and of filters upon filters it
-- expects far too few; these rows that never come keep it at the ASOF joins below.
entries as materialized (
    select
        histories.history, matched.occurred_at, matched.step,
        matched.is_order_conversion, matched.order_event_id
    from matched
    inner join histories
        on histories.customer_key = matched.customer_key and (hold is null or histories.held = matched.held)
    union all
    select
        cast(range as uinteger) as history, make_timestamptz(range) as occurred_at,
        cast(range % $most_steps as utinyint) as step, range = 0 as is_order_conversion, '' as order_event_id
    from range(100000)
    where range < 0
),

exclusions as (
    select distinct histories.history, touchpoint.occurred_at
    from scope as touchpoint
    inner join histories on histories.customer_key = touchpoint.customer_key and histories.held = touchpoint.held
    where len(exclude) > 0 and ($excluded)
),

-- Each entry with the last exclusion before it. Exclusions at its own instant come after it.
guarded_entries as (
    select history, occurred_at, step, cast(null as timestamptz) as excluded_at
    from entries
    where len(exclude) = 0
    union all
    select entries.history, entries.occurred_at, entries.step, exclusions.occurred_at as excluded_at
    from entries
    asof left join exclusions
        on exclusions.history = entries.history and exclusions.occurred_at < entries.occurred_at
    where len(exclude) > 0
),

-- Per step, the entries that a chain came to, with the times of the latest such chain. At one instant a chain may go
-- through several steps, in their order; not so in strict_increase.
chains_of_1 as (
    select history, occurred_at as time_1
    from entries
    where step = 1 and mode <> 'unordered' and not $is_once_apart
),
$chains
-- strict_once: the same with a different touchpoint for each step, which makes a difference only if one could serve
-- two. Only at one instant could it serve twice, so a chain remembers which kinds of touchpoint (by the steps they
-- serve) it used there, and how many of each there are.
entries_by_kind as (
    select history, occurred_at, kind, kind_count, unnest(kind) as step
    from (
        select history, occurred_at, kind, count(*) as kind_count
        from (
            select
                histories.history, touchpoint.occurred_at, touchpoint.event_id,
                list(step_names.step order by step_names.step) as kind
            from scope as touchpoint
            inner join step_names on $matches
            inner join histories
                on histories.customer_key = touchpoint.customer_key and histories.held = touchpoint.held
            where $is_once_apart
            group by histories.history, touchpoint.occurred_at, touchpoint.event_id
        ) as kinds
        group by history, occurred_at, kind
    ) as counted_kinds
),

chains_used_once as (
    select history, step, occurred_at, [occurred_at] as times, [kind] as used
    from entries_by_kind
    where step = 1 and (until is null or occurred_at < (select until_at from options))
    union
    (
        select history, step, occurred_at, list_append(chain, occurred_at) as times, [kind] as used
        from (
            select
                history, step, occurred_at, kind,
                last_value(times ignore nulls) over walk as chain,
                max(excluded_at) over walk as excluded_at
            from (
                select history, step, occurred_at, times, null as kind, null as excluded_at
                from chains_used_once
                union all
                select history, step, occurred_at, null as times, kind, null as excluded_at
                from entries_by_kind
                where step = (select any_value(step) + 1 from chains_used_once)
                union all
                select history, null as step, occurred_at, null as times, null as kind, occurred_at as excluded_at
                from exclusions
            ) as neighbours
            window walk as (
                partition by history order by occurred_at, kind is null, excluded_at nulls first, times
                rows between unbounded preceding and current row
            )
        ) as walked
        where
            kind is not null
            and epoch_us(occurred_at) - epoch_us(chain[1]) <= (select window_us from options)
            and (
                excluded_at is null
                or step <= exclude_after
                or step > coalesce(exclude_before, len(steps))
                or excluded_at <= chain[exclude_after]
            )
        union all
        select
            entry.history, entry.step, entry.occurred_at,
            list_append(chain.times, entry.occurred_at) as times,
            list_sort(list_append(chain.used, entry.kind)) as used
        from chains_used_once as chain
        inner join entries_by_kind as entry
            on
                entry.history = chain.history and entry.occurred_at = chain.occurred_at
                and entry.step = chain.step + 1
        where len(list_filter(chain.used, lambda used_kind: used_kind = entry.kind)) < entry.kind_count
    )
),

-- unordered: from each entry on, the first touchpoint of every step; "step 2" is the second of the steps that was
-- done.
anchors as (
    select distinct history, occurred_at
    from entries
    where mode = 'unordered' and (until is null or occurred_at < (select until_at from options))
),

anchored as (
    select anchor.history, anchor.occurred_at as anchored_at, entry.occurred_at
    from (select anchors.history, anchors.occurred_at, step_names.step from anchors cross join step_names) as anchor
    asof inner join entries as entry
        on entry.history = anchor.history and entry.step = anchor.step and anchor.occurred_at <= entry.occurred_at
    where epoch_us(entry.occurred_at) - epoch_us(anchor.occurred_at) <= (select window_us from options)
),

chains_unordered as (
    select history, list(occurred_at order by occurred_at) as times
    from (
        select history, anchored_at, occurred_at
        from anchored
        where len(exclude) = 0
        union all
        select anchored.history, anchored.anchored_at, anchored.occurred_at
        from anchored
        asof left join exclusions
            on exclusions.history = anchored.history and anchored.anchored_at < exclusions.occurred_at
        where len(exclude) > 0 and (exclusions.occurred_at is null or anchored.occurred_at <= exclusions.occurred_at)
    ) as reachable
    group by history, anchored_at
),

-- When each history first came to each step; for total, by chains of each start. Of chains that are there at the same
-- time the one that started last counts. A later chain is later in every step: the first one has the minimum of each.
firsts as (
$firsts
    select
        history, step, chain_started_at,
        min(occurred_at) as occurred_at,
        arg_min(times, occurred_at) as times
    from (
        select
            history, step, occurred_at, max(times) as times,
            case when counting = 'total' then max(times)[1] end as chain_started_at
        from (
            select history, step, occurred_at, times
            from chains_used_once
            where step > 1
            union all
            select history, step, times[step] as occurred_at, times[1:step] as times
            from (select history, times, unnest(range(2, len(times) + 1)) as step from chains_unordered) as reaches
        ) as chains
        group by history, step, occurred_at
    ) as latest_chains
    group by history, step, chain_started_at
),

-- unique sees one attempt per history. total sees a new one after each that ended: when all steps were done, when the
-- mode broke it, or when no start (an entry of step 1) came within the window of the start before.
starts as (
    select history, started_at, min(last_at) over later as last_started_at
    from (
        select
            history, occurred_at as started_at,
            case
                when
                    epoch_us(lead(occurred_at) over (partition by history order by occurred_at)) - epoch_us(occurred_at)
                    <= (select window_us from options)
                    then null
                else occurred_at
            end as last_at
        from (
            select distinct history, occurred_at
            from entries
            where counting = 'total' and step = 1 and mode <> 'unordered'
            union all
            select history, occurred_at from anchors where counting = 'total'
        ) as all_starts
    ) as compared
    window later as (
        partition by history order by started_at rows between current row and unbounded following
    )
),

-- What a mode does not break ends with its last step or its window; then the next start begins another attempt.
unbroken_attempts as (
    select
        history,
        unnest(list_reduce(
            list(attempt order by attempt.started_at),
            lambda taken, following: case
                when following.started_at > taken[-1].ended_at then list_append(taken, following) else taken
            end,
            [min(attempt)]
        )) as attempt
    from (
        select
            starts.history,
            {
                started_at: starts.started_at,
                last_started_at: starts.last_started_at,
                ended_at: case
                    when completions.chain_started_at <= starts.last_started_at then completions.occurred_at
                    else make_timestamptz(epoch_us(starts.last_started_at) + (select window_us from options))
                end
            } as attempt
        from starts
        asof left join (
            select history, chain_started_at, occurred_at
            from firsts
            where step = len(steps)
            union all
            select history, started_at as chain_started_at, started_at as occurred_at
            from starts
            where len(steps) = 1
        ) as completions
            on completions.history = starts.history and starts.started_at <= completions.chain_started_at
        where mode not in ('strict_order', 'strict_deduplication')
    ) as possible
    group by history
),

attempts as (
    select history, min(occurred_at) as started_at, max(occurred_at) as last_started_at
    from entries
    where
        counting = 'unique'
        and (
            (step = 1 and mode <> 'unordered')
            or (mode = 'unordered' and (until is null or occurred_at < (select until_at from options)))
        )
    group by history
    union all
    select history, attempt.started_at as started_at, attempt.last_started_at as last_started_at
    from unbroken_attempts
    union all
    -- Every start: only when it is known where each would be broken can those within others be left out.
    select history, started_at, last_started_at
    from starts
    where mode in ('strict_order', 'strict_deduplication')
),

-- When each attempt first came to each step.
reached as (
    select history, started_at, last_started_at, 1 as step, started_at as occurred_at, [started_at] as times
    from attempts
    union all
    select
        attempts.history, attempts.started_at, attempts.last_started_at, firsts.step, firsts.occurred_at, firsts.times
    from attempts
    inner join firsts on firsts.history = attempts.history
    where counting = 'unique'
    union all
    select
        attempts.history, attempts.started_at, attempts.last_started_at, firsts.step, firsts.occurred_at, firsts.times
    from (
        select attempts.history, attempts.started_at, attempts.last_started_at, step_names.step
        from attempts
        cross join step_names
        where counting = 'total' and step_names.step > 1
    ) as attempts
    asof inner join firsts
        on
            firsts.history = attempts.history and firsts.step = attempts.step
            and attempts.started_at <= firsts.chain_started_at
    where firsts.chain_started_at <= attempts.last_started_at
),

-- strict_deduplication: an entry of a step (but the first) that was reached already.
-- strict_order: a touchpoint that serves no step, or an entry of a step whose step before was not reached.
breaks as (
    select reached.history, reached.started_at, entry.occurred_at, entry.step
    from reached
    asof inner join entries as entry
        on
            entry.history = reached.history and entry.step = reached.step
            and reached.occurred_at < entry.occurred_at
    where mode = 'strict_deduplication' and reached.step > 1
    union all
    select reached.history, reached.started_at, repeated.occurred_at, repeated.step
    from reached
    inner join (
        select history, step, occurred_at
        from entries
        where mode = 'strict_deduplication'
        group by history, step, occurred_at
        having count(*) > 1
    ) as repeated
        on
            repeated.history = reached.history and repeated.step = reached.step
            and repeated.occurred_at = reached.occurred_at
    where reached.step > 1
    union all
    select attempts.history, attempts.started_at, stranger.occurred_at, 0 as step
    from attempts
    asof inner join (
        select histories.history, touchpoint.occurred_at
        from scope as touchpoint
        inner join histories
            on histories.customer_key = touchpoint.customer_key and histories.held = touchpoint.held
        where mode = 'strict_order' and not ($matches_any)
    ) as stranger
        on stranger.history = attempts.history and attempts.started_at < stranger.occurred_at
    where mode = 'strict_order'
    union all
    select early.history, early.started_at, early.occurred_at, early.step
    from (
        select attempts.history, attempts.started_at, entry.occurred_at, entry.step
        from (
            select attempts.history, attempts.started_at, step_names.step
            from attempts
            cross join step_names
            where mode = 'strict_order' and step_names.step > 1
        ) as attempts
        asof inner join entries as entry
            on
                entry.history = attempts.history and entry.step = attempts.step
                and attempts.started_at <= entry.occurred_at
    ) as early
    left join reached as previous
        on
            previous.history = early.history and previous.started_at = early.started_at
            and previous.step = early.step - 1
    where previous.occurred_at is null or early.occurred_at < previous.occurred_at
),

first_breaks as (
    select history, started_at, min({occurred_at: occurred_at, step: step}) as first_break
    from breaks
    group by history, started_at
),

-- A repeated entry comes after the equal one that reached the step.
judged as (
    select
        reached.history, reached.started_at,
        max(reached.step) as level,
        arg_max(reached.times, reached.step) as times,
        max(reached.last_started_at) as last_started_at,
        any_value(first_breaks.first_break.occurred_at) as broken_at
    from reached
    left join first_breaks
        on first_breaks.history = reached.history and first_breaks.started_at = reached.started_at
    where
        first_breaks.first_break is null
        or reached.occurred_at < first_breaks.first_break.occurred_at
        or (
            reached.occurred_at = first_breaks.first_break.occurred_at
            and reached.step <= first_breaks.first_break.step
        )
    group by reached.history, reached.started_at
),

ended as (
    select
        judged.history, judged.started_at, judged.level, judged.times,
        judged.level < len(steps)
        and judged.broken_at is null
        and epoch_us(judged.last_started_at) + options.window_us >= epoch_us(options.data_as_of) as is_open,
        case
            when judged.level = len(steps) then judged.times[judged.level]
            else least(judged.broken_at, make_timestamptz(epoch_us(judged.last_started_at) + options.window_us))
        end as ended_at
    from judged
    cross join options
),

-- The same for what a mode broke.
followed as (
    select
        history,
        unnest(list_reduce(
            list({started_at: started_at, ended_at: ended_at} order by started_at),
            lambda taken, following: case
                when following.started_at > taken[-1].ended_at then list_append(taken, following) else taken
            end,
            [arg_min({started_at: started_at, ended_at: ended_at}, started_at)]
        )).started_at as started_at
    from ended
    where counting = 'total' and mode in ('strict_order', 'strict_deduplication')
    group by history
),

-- unique with hold: the customer's best history, the earliest of equals.
counted as (
    select histories.history, histories.customer_key, histories.held, ended.level, ended.times, ended.is_open
    from ended
    inner join histories on histories.history = ended.history
    where
        (counting = 'unique' and hold is null)
        or (counting = 'total' and mode not in ('strict_order', 'strict_deduplication'))
    union all
    select history, customer_key, held, level, times, is_open
    from (
        select
            histories.history, histories.customer_key, histories.held, ended.level, ended.times, ended.is_open,
            row_number() over (
                partition by histories.customer_key
                order by ended.level desc, ended.times[ended.level], ended.times desc, histories.held
            ) as place
        from ended
        inner join histories on histories.history = ended.history
        where counting = 'unique' and hold is not null
    ) as ranked
    where place = 1
    union all
    select histories.history, histories.customer_key, histories.held, ended.level, ended.times, ended.is_open
    from ended
    inner join followed on followed.history = ended.history and followed.started_at = ended.started_at
    inner join histories on histories.history = ended.history
),

-- What each counts under: a value of the customer's first inbound touchpoint, or of the touchpoint of a step.
first_values as (
    select
        touchpoint.customer_key,
        arg_min_null($breakdown_value, row(touchpoint.occurred_at, touchpoint.event_id)) as value
    from touchpoints as touchpoint
    where breakdown is not null and breakdown_at = 'first_touch' and touchpoint.direction = 'inbound'
    group by touchpoint.customer_key
),

step_values as (
    select
        touchpoint.customer_key, touchpoint.held, touchpoint.occurred_at,
        case when mode <> 'unordered' then step_names.step else 0 end as step,
        arg_min_null($breakdown_value, touchpoint.event_id) as value
    from scope as touchpoint
    inner join step_names on $matches
    where breakdown is not null and breakdown_at <> 'first_touch'
    group by
        touchpoint.customer_key, touchpoint.held, touchpoint.occurred_at,
        case when mode <> 'unordered' then step_names.step else 0 end
),

valued as (
    select history, customer_key, held, level, times, is_open, '(all)' as value
    from counted
    where breakdown is null
    union all
    select
        counted.history, counted.customer_key, counted.held, counted.level, counted.times, counted.is_open,
        coalesce(cast(first_values.value as varchar), '(none)') as value
    from counted
    left join first_values on first_values.customer_key = counted.customer_key
    where breakdown is not null and breakdown_at = 'first_touch'
    union all
    select
        placed.history, placed.customer_key, placed.held, placed.level, placed.times, placed.is_open,
        case
            when placed.value_step > placed.level then '(not reached)'
            else coalesce(cast(step_values.value as varchar), '(none)')
        end as value
    from (
        select
            *,
            case when breakdown_at = 'last_touch' then level else cast(substring(breakdown_at, 6) as integer) end
                as value_step
        from counted
        where breakdown is not null and breakdown_at <> 'first_touch'
    ) as placed
    left join step_values
        on
            step_values.customer_key = placed.customer_key and step_values.held = placed.held
            and step_values.occurred_at = placed.times[placed.value_step]
            and step_values.step = case when mode <> 'unordered' then placed.value_step else 0 end
),

-- The largest values by name, the rest as one.
large_values as (
    select value
    from valued
    where breakdown is not null and value not in ('(none)', '(not reached)')
    group by value
    qualify row_number() over (order by count(*) desc, value) <= (select breakdown_limit from options)
),

named as (
    select
        valued.*,
        case
            when breakdown is null or valued.value in ('(none)', '(not reached)') or large_values.value is not null
                then valued.value
            else '(other)'
        end as breakdown_value
    from valued
    left join large_values on large_values.value = valued.value
),

attempt_steps as (
    select
        history, customer_key, held, level, is_open, breakdown_value, times,
        unnest(times) as occurred_at,
        generate_subscripts(times, 1) as step
    from named
),

-- The revenue of the order that a step's touchpoint converted.
step_orders as (
    select
        entries.history, entries.occurred_at,
        case when mode <> 'unordered' then entries.step else 0 end as step,
        arg_min(orders.revenue, orders.event_id) as revenue
    from entries
    inner join histories on histories.history = entries.history
    inner join orders
        on
            orders.customer_key = histories.customer_key and orders.ordered_at = entries.occurred_at
            and (entries.order_event_id is null or orders.event_id = entries.order_event_id)
    where entries.is_order_conversion
    group by entries.history, entries.occurred_at, case when mode <> 'unordered' then entries.step else 0 end
),

checked as (
    select
        case
            when len(steps) between 1 and $most_steps then true
            else error('funnel: steps is a list of 1 to $most_steps')
        end
        and case
            when
                mode in
                ('default', 'strict_order', 'strict_deduplication', 'strict_increase', 'strict_once', 'unordered')
                then true
            else error(
                'funnel: mode is default, strict_order, strict_deduplication, strict_increase, strict_once or unordered'
            )
        end
        and case when counting in ('unique', 'total') then true else error('funnel: counting is unique or total') end
        and case
            when touches in ('inbound', 'outbound', 'any') then true
            else error('funnel: touches are inbound, outbound or any')
        end
        and case
            when within is null or epoch_us(cast(within as interval)) >= 0 then true
            else error('funnel: within is an interval such as interval 7 days')
        end
        and case
            when exclude_after >= 1 and exclude_after < coalesce(exclude_before, len(steps) + 1)
                and coalesce(exclude_before, len(steps)) <= len(steps)
                then true
            else error('funnel: exclude_after and exclude_before are steps, the first before the second')
        end
        and case
            when
                mode <> 'unordered'
                or (exclude_after = 1 and coalesce(exclude_before, len(steps)) = len(steps))
                then true
            else error('funnel: unordered has no steps between which to exclude; leave out exclude_after and _before')
        end
        and case
            when hold is null or list_contains($columns, hold) then true
            else error('funnel: hold is one of ' || array_to_string($columns, ', '))
        end
        and case
            when breakdown is null or list_contains($columns, breakdown) then true
            else error('funnel: breakdown is one of ' || array_to_string($columns, ', '))
        end
        and case
            when
                breakdown_at in ('first_touch', 'last_touch')
                or coalesce(try_cast(substring(breakdown_at, 6) as integer) between 1 and len(steps), false)
                then true
            else error('funnel: breakdown_at is first_touch, last_touch or step_1 to step_' || len(steps))
        end as is_valid
)

select
    attempt_steps.customer_key,
    case when hold is not null then attempt_steps.held end as held_value,
    attempt_steps.times[1] as started_at,
    attempt_steps.step,
    attempt_steps.occurred_at,
    seconds_between(attempt_steps.times[attempt_steps.step - 1], attempt_steps.occurred_at) as seconds_from_previous,
    seconds_between(attempt_steps.times[1], attempt_steps.occurred_at) as seconds_from_first,
    step_orders.revenue,
    attempt_steps.level = attempt_steps.step as is_last_step,
    attempt_steps.is_open and attempt_steps.level = attempt_steps.step as is_open,
    attempt_steps.breakdown_value
from attempt_steps
inner join checked on checked.is_valid
left join step_orders
    on
        step_orders.history = attempt_steps.history and step_orders.occurred_at = attempt_steps.occurred_at
        and step_orders.step = case when mode <> 'unordered' then attempt_steps.step else 0 end
