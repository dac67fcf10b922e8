import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts delivery results per campaign, minute, provider and address, in the same columns as policy/counts.py.
 *
 * Written to be fast: no repartition topic, a pull parser, one sum per frame and minute, and an aggregate that is its
 * own serialized form, so that the store's cache costs neither parsing nor objects.  A record is a frame of results
 * or one result.
 *
 * Arguments: bootstrap servers, application id, topic in, topic out, state folder, and for each category of a bounce
 * its column (name=number).
 */
public final class StreamsTally {
    static final int ACCEPTED = 0, SOFT = 2, BLOCK = 3, DEFERRAL = 4, ATTEMPTS = 5, WIDTH = 6;
    static final long MINUTE_MS = 60_000;
    static final JsonFactory JSON = new JsonFactory();

    public static void main(String[] args) {
        Map<String, Integer> columns = new HashMap<>();
        for (String one : Arrays.copyOfRange(args, 5, args.length)) {
            String[] pair = one.split("=");
            columns.put(pair[0], Integer.parseInt(pair[1]));
        }
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(args[2], Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .<byte[]>processValues(() -> new Booking(columns))
            .groupByKey(Grouped.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofDays(1)))
            .aggregate(
                () -> new byte[0],
                (campaign, more, held) -> Cells.sum(held, more),
                Materialized.<byte[], byte[]>as(
                        Stores.inMemoryWindowStore("panes", Duration.ofDays(2), Duration.ofMinutes(1), false))
                    .withKeySerde(Serdes.ByteArray())
                    .withValueSerde(Serdes.ByteArray())
                    .withLoggingEnabled(Map.of())
                    .withCachingEnabled())
            .toStream()
            .to(args[3], Produced.with(WindowedSerdes.timeWindowedSerdeFrom(byte[].class, MINUTE_MS), Serdes.ByteArray()));

        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 * 1024 * 1024);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("session.timeout.ms"), 60_000);
        settings.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 8 * 1024 * 1024);
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    /** From a frame to one sum for each minute in it, at the time of that minute. */
    static final class Booking implements FixedKeyProcessor<byte[], byte[], byte[]> {
        private final Map<String, Integer> columns;
        private FixedKeyProcessorContext<byte[], byte[]> context;

        Booking(Map<String, Integer> columns) {
            this.columns = columns;
        }

        @Override
        public void init(FixedKeyProcessorContext<byte[], byte[]> context) {
            this.context = context;
        }

        @Override
        public void process(FixedKeyRecord<byte[], byte[]> record) {
            Frame frame = new Frame(columns);
            try (JsonParser json = JSON.createParser(record.value())) {
                frame.read(json);
            } catch (IOException wrong) {
                throw new UncheckedIOException(wrong);
            }
            for (Minute minute = frame.first; minute != null; minute = minute.next) {
                context.forward(record.withTimestamp(minute.number * MINUTE_MS).withValue(minute.cells()));
            }
        }
    }

    /** The results of a frame, counted as they are parsed; a frame has one minute or two, and few cells. */
    static final class Frame {
        private final Map<String, Integer> columns;
        private String outcome, provider, ip, category;
        private long at;
        private Minute latest;
        Minute first;

        Frame(Map<String, Integer> columns) {
            this.columns = columns;
        }

        void read(JsonParser json) throws IOException {
            json.nextToken();
            boolean isFrame = fields(json);
            if (!isFrame) {
                count();
            }
        }

        /** Reads the fields of a frame or of a result; answers whether it was a frame. */
        private boolean fields(JsonParser json) throws IOException {
            boolean isFrame = false;
            for (String name = json.nextFieldName(); name != null; name = json.nextFieldName()) {
                JsonToken token = json.nextToken();
                switch (name) {
                    case "outcome" -> outcome = json.getText();
                    case "at" -> at = json.getLongValue();
                    case "provider" -> provider = json.getText();
                    case "ip" -> ip = token == JsonToken.VALUE_NULL ? "" : json.getText();
                    case "class" -> category = token == JsonToken.VALUE_NULL ? null : json.getText();
                    case "results" -> {
                        isFrame = true;
                        while (json.nextToken() == JsonToken.START_OBJECT) {
                            outcome = provider = ip = category = null;
                            fields(json);
                            count();
                        }
                    }
                    default -> json.skipChildren();
                }
            }
            return isFrame;
        }

        private void count() {
            switch (outcome) {
                case "accepted" -> {
                    int[] counts = counts();
                    counts[ACCEPTED]++;
                    counts[ATTEMPTS]++;
                }
                case "deferred" -> {
                    int[] counts = counts();
                    counts[DEFERRAL]++;
                    counts[ATTEMPTS]++;
                    if (columns.getOrDefault(category, SOFT) == BLOCK) {
                        counts[BLOCK]++;
                    }
                }
                case "bounced" -> {
                    int[] counts = counts();
                    counts[columns.getOrDefault(category, SOFT)]++;
                    counts[ATTEMPTS]++;
                }
                case "expired" -> counts()[SOFT]++;
                default -> { }  // suppressed, in_doubt: no server said anything
            }
        }

        private int[] counts() {
            long number = at / MINUTE_MS;
            if (latest == null || latest.number != number) {
                latest = minute(number);
            }
            return latest.counts(provider, ip);
        }

        private Minute minute(long number) {
            for (Minute one = first; one != null; one = one.next) {
                if (one.number == number) {
                    return one;
                }
            }
            first = new Minute(number, first);
            return first;
        }
    }

    /** The counts of one minute, by provider and address. */
    static final class Minute {
        final long number;
        final Minute next;
        private Cell cells;

        Minute(long number, Minute next) {
            this.number = number;
            this.next = next;
        }

        int[] counts(String provider, String ip) {
            for (Cell one = cells; one != null; one = one.next) {
                if (one.provider.equals(provider) && one.ip.equals(ip)) {
                    return one.counts;
                }
            }
            cells = new Cell(provider, ip, cells);
            return cells.counts;
        }

        byte[] cells() {
            int size = 0;
            for (Cell one = cells; one != null; one = one.next) {
                size += 2 + one.name().length + 4 * WIDTH;
            }
            ByteBuffer out = ByteBuffer.allocate(size);
            for (Cell one = cells; one != null; one = one.next) {
                out.putShort((short) one.name().length).put(one.name());
                for (int count : one.counts) {
                    out.putInt(count);
                }
            }
            return out.array();
        }
    }

    static final class Cell {
        final String provider, ip;
        final int[] counts = new int[WIDTH];
        final Cell next;
        private byte[] name;

        Cell(String provider, String ip, Cell next) {
            this.provider = provider;
            this.ip = ip;
            this.next = next;
        }

        byte[] name() {
            if (name == null) {
                name = (provider + "|" + ip).getBytes(StandardCharsets.UTF_8);
            }
            return name;
        }
    }

    /** Serialized cells: for each the length of its name, its name, its counts. */
    static final class Cells {
        static byte[] sum(byte[] held, byte[] more) {
            if (held.length == 0) {
                return more;
            }
            byte[] total = held.clone();
            ByteBuffer sums = ByteBuffer.wrap(total);
            for (int at = 0; at < more.length; at = end(more, at)) {
                int there = find(total, more, at);
                if (there < 0) {
                    int before = total.length, length = end(more, at) - at;
                    total = Arrays.copyOf(total, before + length);
                    System.arraycopy(more, at, total, before, length);
                    sums = ByteBuffer.wrap(total);
                } else {
                    ByteBuffer added = ByteBuffer.wrap(more);
                    int from = end(more, at) - 4 * WIDTH, to = end(total, there) - 4 * WIDTH;
                    for (int place = 0; place < 4 * WIDTH; place += 4) {
                        sums.putInt(to + place, sums.getInt(to + place) + added.getInt(from + place));
                    }
                }
            }
            return total;
        }

        private static int find(byte[] cells, byte[] wanted, int at) {
            int end = at + 2 + length(wanted, at);
            for (int place = 0; place < cells.length; place = end(cells, place)) {
                if (Arrays.equals(cells, place, place + 2 + length(cells, place), wanted, at, end)) {
                    return place;
                }
            }
            return -1;
        }

        private static int length(byte[] cells, int at) {
            return (cells[at] & 0xff) << 8 | cells[at + 1] & 0xff;
        }

        private static int end(byte[] cells, int at) {
            return at + 2 + length(cells, at) + 4 * WIDTH;
        }
    }
}
