import com.sun.management.OperatingSystemMXBean;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Drains a topic with Confluent's parallel-consumer, one record of a key at a time, and prints what `afterwrite bench drain`
 * prints of itself. Values stay bytes that nobody looks at, which favours this arm.
 *
 * <p>Arguments are NAME=VALUE: brokers, topic, records, lanes, work_us; warm_up (records that are drained before, by another
 * group), late_after (records before the first whose delay counts; none is measured when left out), idle_s.
 */
public final class ParallelConsumerArm {
    private final Map<String, String> arguments;

    private ParallelConsumerArm(Map<String, String> arguments) {
        this.arguments = arguments;
    }

    public static void main(String[] words) throws Exception {
        Map<String, String> arguments = new HashMap<>();
        for (String word : words) {
            String[] parts = word.split("=", 2);
            arguments.put(parts[0], parts[1]);
        }
        ParallelConsumerArm arm = new ParallelConsumerArm(arguments);
        int warmUp = arm.number("warm_up", 0);
        if (warmUp > 0) {
            arm.drain(warmUp, -1);
        }
        System.out.println(arm.drain(arm.number("records", 0), arm.number("late_after", -1)));
        // Threads of the library outlive its close for some seconds.
        System.exit(0);
    }

    private int number(String name, int otherwise) {
        return Integer.parseInt(arguments.getOrDefault(name, Integer.toString(otherwise)));
    }

    /** Drains so many records, and says how as one JSON object. */
    private String drain(int wanted, int lateAfter) throws Exception {
        long workUs = number("work_us", 0);
        Seen seen = new Seen(wanted, lateAfter);
        long cpuBefore = cpuNanos();
        ParallelStreamProcessor<String, byte[]> processor = processor();
        processor.subscribe(List.of(arguments.get("topic")));
        processor.poll(context -> {
            long began = System.nanoTime();
            seen.begins(began);
            if (workUs > 0) {
                pause(workUs);
            }
            seen.ends(context.getSingleConsumerRecord(), System.nanoTime() - began);
        });
        seen.await(Duration.ofSeconds(number("idle_s", 60)));
        long cpu = cpuNanos() - cpuBefore;
        String report = seen.report(workUs, number("lanes", 0), cpu / 1e9);
        processor.closeDontDrainFirst();
        return report;
    }

    private ParallelStreamProcessor<String, byte[]> processor() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments.get("brokers"));
        properties.put("group.id", "afterwrite.bench.peer." + UUID.randomUUID());
        properties.put("auto.offset.reset", "earliest");
        properties.put("enable.auto.commit", "false");
        properties.put("isolation.level", "read_committed");
        KafkaConsumer<String, byte[]> consumer =
                new KafkaConsumer<>(properties, new StringDeserializer(), new ByteArrayDeserializer());
        return ParallelStreamProcessor.createEosStreamProcessor(ParallelConsumerOptions.<String, byte[]>builder()
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(number("lanes", 1_000))
                .consumer(consumer)
                .build());
    }

    private static void pause(long micros) {
        try {
            TimeUnit.MICROSECONDS.sleep(micros);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private static long cpuNanos() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    /** Largest resident memory of the process so far. */
    private static double peakMegabytes() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
            }
        }
        return 0;
    }

    /** What was done, counted by distinct (partition, offset). */
    private static final class Seen {
        private final int wanted;
        private final int lateAfter;
        private final Map<Integer, BitSet> done = new HashMap<>();
        private final CountDownLatch complete = new CountDownLatch(1);
        private final AtomicLong firstAt = new AtomicLong();
        private final long[] lateNanos;
        private long lastAt;
        private int count;
        private int duplicates;
        private long worked;
        /** For each key its calls and the nanoseconds they took. */
        private final Map<String, long[]> workedByKey = new HashMap<>();

        Seen(int wanted, int lateAfter) {
            this.wanted = wanted;
            this.lateAfter = lateAfter;
            this.lateNanos = new long[lateAfter < 0 ? 0 : Math.max(0, wanted - lateAfter)];
        }

        void begins(long now) {
            firstAt.compareAndSet(0, now);
        }

        synchronized void ends(ConsumerRecord<String, byte[]> record, long nanos) {
            if (count >= wanted) {
                return;
            }
            BitSet offsets = done.computeIfAbsent(record.partition(), partition -> new BitSet());
            if (offsets.get((int) record.offset())) {
                duplicates++;
                return;
            }
            offsets.set((int) record.offset());
            worked += nanos;
            long[] ofKey = workedByKey.computeIfAbsent(record.key(), key -> new long[2]);
            ofKey[0]++;
            ofKey[1] += nanos;
            if (lateAfter >= 0 && count >= lateAfter) {
                lateNanos[count - lateAfter] = unixNanos() - record.timestamp() * 1_000_000;
            }
            count++;
            lastAt = System.nanoTime();
            if (count == wanted) {
                complete.countDown();
            }
        }

        private static long unixNanos() {
            java.time.Instant now = java.time.Instant.now();
            return now.getEpochSecond() * 1_000_000_000 + now.getNano();
        }

        private synchronized int count() {
            return count;
        }

        /** Waits until everything wanted is done, or nothing was done for so long. */
        void await(Duration idle) throws InterruptedException {
            int before = -1;
            while (!complete.await(idle.toMillis(), TimeUnit.MILLISECONDS) && count() != before) {
                before = count();
            }
        }

        synchronized String report(long workUs, int lanes, double cpu) throws Exception {
            double seconds = (lastAt - firstAt.get()) / 1e9;
            Arrays.sort(lateNanos);
            long[] busiest = {1, 0};
            for (long[] ofKey : workedByKey.values()) {
                busiest = ofKey[0] > busiest[0] ? ofKey : busiest;
            }
            return String.format(
                    Locale.ROOT,
                    "{\"work_us\":%d,\"lanes\":%d,\"records\":%d,\"seconds\":%.3f,\"records_per_s\":%.0f,\"cpu_s\":%.3f,"
                            + "\"peak_rss_mb\":%.1f,\"work_us_mean\":%.1f,\"busiest_work_us_mean\":%.1f,\"duplicates\":%d,\"missing\":%d,"
                            + "\"late_p50_ms\":%s,\"late_p99_ms\":%s}",
                    workUs, lanes, count, seconds, count / seconds, cpu,
                    peakMegabytes(), worked / 1e3 / Math.max(1, count), busiest[1] / 1e3 / busiest[0], duplicates, wanted - count,
                    late(0.5), late(0.99));
        }

        private String late(double share) {
            if (lateNanos.length == 0) {
                return "null";
            }
            int place = (int) Math.ceil(lateNanos.length * share) - 1;
            return String.format(Locale.ROOT, "%.3f", lateNanos[Math.max(0, place)] / 1e6);
        }
    }
}
