import ai.onnxruntime.OrtException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The loop that a Java engineer tunes by hand: two threads, each with a consumer, an ONNX session and a transactional
 * producer of its own.
 *
 * Guarantee: exactly once to Kafka. Predictions and offsets are one transaction; a thread's transactional id fences
 * whoever had its partitions before. An error ends the program, and the next start goes on from the committed offsets.
 *
 * Left out: Parquet; dead letters, so that one malformed record stops it for good; partitions that are added; replicas
 * elsewhere than in its two threads.
 */
public final class PlainLoop implements AutoCloseable {
    private static final int THREADS = 2;
    private static final int BATCH_RECORDS = 1_000;
    private static final int POLL_RECORDS = 4 * BATCH_RECORDS;
    private static final Duration POLL = Duration.ofMillis(10);
    private static final long COMMIT_NANOS = 200_000_000;
    private static final long STOP_SECONDS = 10;
    /** Two seconds of each thread's predictions may wait for the broker; beyond that `send` waits too. */
    private static final long BUFFER_BYTES = 64 << 20;

    private final String predictions;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final KafkaProducer<byte[], byte[]> producer;
    private final Model model;
    private final EventReader reader = new EventReader();
    private final PredictionWriter writer = new PredictionWriter(Options.MODEL_NAME, Options.MODEL_VERSION);
    private final List<ConsumerRecord<byte[], byte[]>> batch = new ArrayList<>(BATCH_RECORDS);
    private final long[] ids = new long[BATCH_RECORDS];
    /** What the open transaction answers for; it is empty while none is open. */
    private final Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();

    private PlainLoop(Options options, int thread) throws OrtException {
        predictions = options.get("predictions");
        consumer = new KafkaConsumer<>(
                Map.of(
                        "bootstrap.servers", options.get("bootstrap"),
                        "group.id", options.get("name"),
                        "auto.offset.reset", "earliest",
                        "enable.auto.commit", false,
                        "isolation.level", "read_committed",
                        "max.poll.records", POLL_RECORDS,
                        "max.partition.fetch.bytes", 4 << 20,
                        "receive.buffer.bytes", -1),
                new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
        producer = new KafkaProducer<>(
                Map.of(
                        "bootstrap.servers", options.get("bootstrap"),
                        "transactional.id", options.get("name") + "." + thread,
                        "compression.type", "lz4",
                        "linger.ms", 5,
                        "batch.size", 256 << 10,
                        "buffer.memory", BUFFER_BYTES,
                        "send.buffer.bytes", -1),
                new ByteArraySerializer(),
                new ByteArraySerializer());
        model = new Model(options.modelFile(), BATCH_RECORDS);
        producer.initTransactions();
        consumer.assign(consumer.partitionsFor(options.get("events")).stream()
                .filter(one -> one.partition() % THREADS == thread)
                .map(one -> new TopicPartition(one.topic(), one.partition()))
                .toList());
    }

    public static void main(String[] arguments) throws ExecutionException, InterruptedException {
        Options options = Options.of(arguments);
        // Records that may still be committed; nothing is left to do at 0.
        AtomicLong left = new AtomicLong(options.records());
        ExecutorService threads = Executors.newFixedThreadPool(THREADS);
        List<Future<?>> running = new ArrayList<>();
        for (int thread = 0; thread < THREADS; thread++) {
            int number = thread;
            running.add(threads.submit(() -> {
                try (PlainLoop loop = new PlainLoop(options, number)) {
                    loop.run(left);
                } finally {
                    left.set(0);
                }
                return null;
            }));
        }
        threads.shutdown();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            left.set(0);
            awaitEnd(threads);
        }));
        for (Future<?> one : running) {
            one.get();
        }
    }

    private static void awaitEnd(ExecutorService threads) {
        try {
            threads.awaitTermination(STOP_SECONDS, TimeUnit.SECONDS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }

    private void run(AtomicLong left) throws OrtException {
        long began = 0;
        long scored = 0;
        while (left.get() > 0) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(POLL);
            if (!records.isEmpty()) {
                if (next.isEmpty()) {
                    producer.beginTransaction();
                    began = System.nanoTime();
                }
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    ids[batch.size()] = reader.read(record.value(), model.features);
                    batch.add(record);
                    if (batch.size() == BATCH_RECORDS) {
                        send();
                    }
                }
                send();
                next.putAll(records.nextOffsets());
                scored += records.count();
            }
            if (!next.isEmpty() && System.nanoTime() - began >= COMMIT_NANOS) {
                producer.sendOffsetsToTransaction(next, consumer.groupMetadata());
                producer.commitTransaction();
                next.clear();
                left.addAndGet(-scored);
                scored = 0;
            }
        }
    }

    private void send() throws OrtException {
        if (batch.isEmpty()) {
            return;
        }
        float[] scores = model.score(batch.size());
        for (int place = 0; place < scores.length; place++) {
            ConsumerRecord<byte[], byte[]> record = batch.get(place);
            float score = scores[place];
            byte[] value = writer.write(
                    record.partition(), record.offset(), ids[place], score, score >= Options.THRESHOLD);
            producer.send(new ProducerRecord<>(predictions, record.partition(), record.key(), value));
        }
        batch.clear();
    }

    /** What no transaction has committed by then is aborted by the next start. */
    @Override
    public void close() throws OrtException {
        producer.close(Duration.ZERO);
        consumer.close();
        model.close();
    }
}
