import java.io.IOException;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.parquet.hadoop.ParquetWriter;
import org.apache.parquet.hadoop.api.WriteSupport;
import org.apache.parquet.hadoop.metadata.CompressionCodecName;
import org.apache.parquet.io.OutputFile;
import org.apache.parquet.io.api.Binary;
import org.apache.parquet.io.api.RecordConsumer;
import org.apache.parquet.schema.MessageType;
import org.apache.parquet.schema.MessageTypeParser;

/** The rows that every contender writes, straight into Parquet's columns. */
final class ScoredRows extends WriteSupport<FlinkJob.Scored> {
    private static final MessageType SCHEMA = MessageTypeParser.parseMessageType("""
            message scored {
              required binary topic (STRING);
              required int32 partition;
              required int64 offset;
              optional binary key;
              required int64 event_time (TIMESTAMP(MICROS,true));
              required int64 scored_at (TIMESTAMP(MICROS,true));
              required binary model_name (STRING);
              required binary model_version (STRING);
              required int64 id;
              required float score;
              required boolean flagged;
            }
            """);

    private final Binary topic;
    private final Binary model = Binary.fromString(Options.MODEL_NAME);
    private final Binary version = Binary.fromString(Options.MODEL_VERSION);
    private RecordConsumer consumer;

    private ScoredRows(String topic) {
        this.topic = Binary.fromString(topic);
    }

    static ParquetWriter<FlinkJob.Scored> writer(OutputFile file, String topic) throws IOException {
        return new Builder(file, topic)
                .withCompressionCodec(CompressionCodecName.ZSTD)
                .build();
    }

    @Override
    public WriteContext init(Configuration configuration) {
        return new WriteContext(SCHEMA, Map.of());
    }

    @Override
    public void prepareForWrite(RecordConsumer consumer) {
        this.consumer = consumer;
    }

    @Override
    public void write(FlinkJob.Scored scored) {
        FlinkJob.Event event = scored.event();
        consumer.startMessage();
        add(0, topic);
        consumer.startField(SCHEMA.getFieldName(1), 1);
        consumer.addInteger(event.partition());
        consumer.endField(SCHEMA.getFieldName(1), 1);
        add(2, event.offset());
        if (event.key() != null) {
            add(3, Binary.fromReusedByteArray(event.key()));
        }
        add(4, event.timestamp() * 1_000);
        add(5, scored.at());
        add(6, model);
        add(7, version);
        add(8, scored.id());
        consumer.startField(SCHEMA.getFieldName(9), 9);
        consumer.addFloat(scored.score());
        consumer.endField(SCHEMA.getFieldName(9), 9);
        consumer.startField(SCHEMA.getFieldName(10), 10);
        consumer.addBoolean(scored.flagged());
        consumer.endField(SCHEMA.getFieldName(10), 10);
        consumer.endMessage();
    }

    private void add(int column, Binary value) {
        consumer.startField(SCHEMA.getFieldName(column), column);
        consumer.addBinary(value);
        consumer.endField(SCHEMA.getFieldName(column), column);
    }

    private void add(int column, long value) {
        consumer.startField(SCHEMA.getFieldName(column), column);
        consumer.addLong(value);
        consumer.endField(SCHEMA.getFieldName(column), column);
    }

    private static final class Builder extends ParquetWriter.Builder<FlinkJob.Scored, Builder> {
        private final String topic;

        Builder(OutputFile file, String topic) {
            super(file);
            this.topic = topic;
        }

        @Override
        protected Builder self() {
            return this;
        }

        @Override
        protected WriteSupport<FlinkJob.Scored> getWriteSupport(Configuration configuration) {
            return new ScoredRows(topic);
        }
    }
}
